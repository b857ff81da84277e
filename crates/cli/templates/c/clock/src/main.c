// The clock process: a program that is run at each time of its schedule. A tick isn't repeated: what must not be missed is
// put on a queue, for a worker.

#include <stdio.h>

#include "greeting.h"

int main(void) {
  char text[64];
  greeting(NULL, text, sizeof text);
  printf("tick: %s", text);
  return 0;
}
