// The worker process: an ordinary program, which is run for each job. Its payload is on standard input. Exit code 0 says
// that it is done; any other, that of a panic too, that it is to be tried again.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	payload, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	var wanted struct{ Text string }
	if err := json.Unmarshal(payload, &wanted); err != nil {
		panic(fmt.Sprintf(`expected {"text": "..."}: %v`, err))
	}
	words := strings.Fields(wanted.Text)
	// A text without a word is a panic, which nobody catches: the job is tried again.
	fmt.Printf("job %s: %d words, the first is %q\n", os.Getenv("WASMHOST_JOB_ID"), len(words), words[0])
}
