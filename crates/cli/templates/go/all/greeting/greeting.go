// Package greeting has what needs no host, and is tested without one: `go test ./greeting`.
package greeting

// For greets a name, or nobody in particular.
func For(name string) string {
	if name == "" {
		name = "world"
	}
	return "Hello, " + name + "!\n"
}
