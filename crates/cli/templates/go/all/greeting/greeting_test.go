package greeting

import "testing"

func TestANameIsGreeted(t *testing.T) {
	for name, want := range map[string]string{"Ada": "Hello, Ada!\n", "": "Hello, world!\n"} {
		if got := For(name); got != want {
			t.Errorf("For(%q) = %q, want %q", name, got, want)
		}
	}
}
