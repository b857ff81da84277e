#!/bin/sh
# Builds {{type}}.wasm with a clang that has a C library for WASI: that of the wasi-sdk in WASI_SDK_PATH, or Debian's.
set -e
mkdir -p build
echo 'int main(void) { return 0; }' >build/probe.c
for clang in ${WASI_SDK_PATH:+"$WASI_SDK_PATH/bin/clang"} clang $(ls /usr/bin/clang-[0-9]* 2>/dev/null | sort -rV); do
    # The second is the target's older name, which Debian's C library has.
    for target in wasm32-wasip1 wasm32-wasi; do
        if "$clang" --target=$target -O2 -flto build/probe.c -o build/probe.wasm 2>/dev/null; then
            cc="$clang --target=$target -std=c17 -O2 -flto -Wall -Wextra -Wno-deprecated -Wl,--strip-debug"
            break 2
        fi
    done
done
if [ -z "$cc" ]; then
    echo "no C compiler here builds for WebAssembly: unpack a wasi-sdk and set WASI_SDK_PATH, or on Debian, as root:" >&2
    echo "    apt-get install --no-install-recommends clang-19 lld-19 libclang-rt-19-dev-wasm32 wasi-libc" >&2
    exit 1
fi
{{compile}}
