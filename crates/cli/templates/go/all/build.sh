#!/bin/sh
# Builds {{type}}.wasm. Go 1.24 is the first that can.
set -e
export GOOS=wasip1 GOARCH=wasm
{{compile}}
