#undef NDEBUG
#include <assert.h>
#include <string.h>

#include "greeting.h"

int main(void) {
  char text[64];
  greeting("Ada", text, sizeof text);
  assert(strcmp(text, "Hello, Ada!\n") == 0);
  greeting(NULL, text, sizeof text);
  assert(strcmp(text, "Hello, world!\n") == 0);
  return 0;
}
