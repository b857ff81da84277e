#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wasmhost_fuzz::host::admin(data));
