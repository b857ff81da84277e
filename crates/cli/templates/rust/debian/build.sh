#!/bin/sh
# Builds {{name}}.wasm with Debian's Rust, which lacks the target wasm32-wasip2.
#
# Where `rustup target add wasm32-wasip2` works, formation.toml needs no script:
#     component = "target/wasm32-wasip2/release/{{ident}}.wasm"
#     build = "cargo build --release --target wasm32-wasip2"
set -e
CARGO_TARGET_WASM32_WASIP1_LINKER=$(ls /usr/bin/wasm-ld* | sort -V | tail -n 1)
PATH=/usr/bin:$PATH RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
export PATH RUSTC RUSTC_BOOTSTRAP CARGO_TARGET_WASM32_WASIP1_LINKER
cargo build --release --target wasm32-wasip1 -Zbuild-std=std,panic_abort
"${WASMHOST:-wasmhost}" componentize target/wasm32-wasip1/release/{{ident}}.wasm -o {{name}}.wasm
