// The clock process: a program that is run at each time of its schedule. A tick isn't repeated: what must not be missed is
// put on a queue, for a worker.
package main

import (
	"fmt"

	"{{name}}/greeting"
)

func main() {
	fmt.Printf("tick: %s", greeting.For(""))
}
