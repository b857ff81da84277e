#include <stddef.h>

// Writes a greeting, for a name or for nobody in particular.
void greeting(const char *name, char *text, size_t len);
