// The worker process: a program that is run for each job of the queue. The payload is on its standard input. Exit code 0
// says that the job is done; any other, that of a panic too, that it is to be tried again.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"{{name}}/greeting"
)

func main() {
	payload, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	name := strings.TrimSpace(string(payload))
	fmt.Printf("job %s, attempt %s: %s", os.Getenv("WASMHOST_JOB_ID"), os.Getenv("WASMHOST_JOB_ATTEMPT"), greeting.For(name))
}
