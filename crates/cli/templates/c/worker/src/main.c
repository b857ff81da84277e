// The worker process: a program that is run for each job of the queue. The payload is on its standard input. Exit code 0
// says that the job is done, 65 (EX_DATAERR) that it never will be, and any other that it is to be tried again.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "greeting.h"

int main(void) {
  char name[256], text[300];
  size_t len = fread(name, 1, sizeof name - 1, stdin);
  if (ferror(stdin)) return 1;
  name[len] = '\0';
  name[strcspn(name, "\n")] = '\0';
  greeting(name, text, sizeof text);
  printf("job %s, attempt %s: %s", getenv("WASMHOST_JOB_ID"), getenv("WASMHOST_JOB_ATTEMPT"), text);
  return 0;
}
