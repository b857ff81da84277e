// The web process: an ordinary net/http handler, and one line that exports it.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"example/go/wasihttp"
)

const bodyBytesMax = 1 << 20

// An instance is kept between requests, so this counts on: for itself, since no two share memory.
var visits atomic.Int64

func init() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "Hello, world!\n")
	})
	mux.HandleFunc("GET /greet/{name}", greet)
	mux.HandleFunc("POST /words", countWords)
	mux.HandleFunc("GET /visits", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, visits.Add(1))
	})
	mux.HandleFunc("GET /upstream", askUpstream)
	// Static files, of the directory that the formation grants. No path leads out of it.
	mux.Handle("GET /files/", http.StripPrefix("/files/", http.FileServer(http.Dir("/public"))))
	mux.HandleFunc("GET /fail", func(w http.ResponseWriter, r *http.Request) {
		panic("as asked for")
	})
	wasihttp.Handle(mux)
}

// A request to another server: the formation names it, and grants it.
func askUpstream(w http.ResponseWriter, r *http.Request) {
	answer, err := wasihttp.Get(os.Getenv("UPSTREAM"))
	if err != nil {
		writeJSON(w, http.StatusBadGateway, map[string]any{"error": err.Error()})
		return
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, bodyBytesMax))
	if err != nil {
		writeJSON(w, http.StatusBadGateway, map[string]any{"error": err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"status": answer.StatusCode, "text": string(text)})
}

func greet(w http.ResponseWriter, r *http.Request) {
	times, err := strconv.Atoi(r.FormValue("times"))
	if err != nil || times < 1 || times > 100 {
		times = 1
	}
	greetings := make([]string, times)
	for i := range greetings {
		greetings[i] = "Hello, " + r.PathValue("name") + "!"
	}
	writeJSON(w, http.StatusOK, map[string]any{"greetings": greetings})
}

func countWords(w http.ResponseWriter, r *http.Request) {
	var wanted struct{ Text string }
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, bodyBytesMax)).Decode(&wanted)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		writeJSON(w, http.StatusRequestEntityTooLarge, map[string]any{"error": "at most a megabyte"})
	case err != nil:
		writeJSON(w, http.StatusBadRequest, map[string]any{"error": `expected {"text": "..."}`})
	default:
		counts := map[string]int{}
		for _, word := range strings.Fields(wanted.Text) {
			counts[strings.ToLower(word)]++
		}
		writeJSON(w, http.StatusOK, counts)
	}
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(value)
}

// A component has no main: the host calls what it exports.
func main() {}
