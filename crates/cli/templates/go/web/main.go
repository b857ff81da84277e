// The web process: an ordinary net/http handler, and one line that exports it.
package main

import (
	"io"
	"net/http"

	"{{name}}/greeting"
	"{{name}}/wasihttp"
)

func init() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, greeting.For(r.FormValue("name")))
	})
	wasihttp.Handle(mux)
}

// A component has no main: the host calls what it exports.
func main() {}
