#include "greeting.h"

#include <stdio.h>

void greeting(const char *name, char *text, size_t len) {
  snprintf(text, len, "Hello, %s!\n", name && *name ? name : "world");
}
