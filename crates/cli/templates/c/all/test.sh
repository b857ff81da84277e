#!/bin/sh
# Tests what needs no host, on this machine.
set -e
mkdir -p build
cc -std=c17 -Wall -Wextra -Isrc src/greeting.c test/greeting.c -o build/test
build/test
