//! Tools whose components and modules are for other hosts, by what these import, and what to do instead.

/// An import that tells which tool a file comes from: the beginning of its name (`MODULE NAME` of a core module), and the
/// advice.
const MAKERS: [(&str, &str); 17] = [
    ("wbg ", WASM_BINDGEN),
    ("__wbindgen_", WASM_BINDGEN),
    ("gojs ", GO_JS),
    ("go runtime.", GO_JS),
    ("env emscripten_", EMSCRIPTEN),
    ("env _emscripten_", EMSCRIPTEN),
    ("env __syscall_", EMSCRIPTEN),
    ("env invoke_", EMSCRIPTEN),
    (
        "env abort",
        "AssemblyScript wants that of browsers: build it with its package @assemblyscript/wasi-shim",
    ),
    ("wasi thread-spawn", "it is built for threads, which components don't have: build it without them"),
    ("wasix_", "WASIX is Wasmer's own: build it for wasm32-wasip2 or wasm32-wasip1"),
    (
        "wasi_snapshot_preview1 sock_",
        "sockets of WASI 0.1 are WasmEdge's own: build it for wasm32-wasip2, which has wasi:sockets",
    ),
    ("fermyon:", SPIN),
    ("spin:", SPIN),
    ("wasmcloud:", "wasmCloud's own host provides it: leave it out, or use an interface of WASI"),
    ("fastly:", "Fastly's own host provides it: build it for wasi:http"),
    ("wasi:logging/", "it is a proposal that few hosts have: write to standard output or error"),
];

const WASM_BINDGEN: &str =
    "wasm-bindgen makes such modules, for browsers: build it for wasm32-wasip2, without wasm-bindgen";
const GO_JS: &str = "Go makes such modules for browsers: build it with GOOS=wasip1";
const EMSCRIPTEN: &str =
    "Emscripten makes such modules, for browsers: build it with a wasi-sdk, or with -sSTANDALONE_WASM";
const SPIN: &str = "Spin's own host provides it: leave it out, or use an interface of WASI";

/// The advice for the first of these imports that is known.
pub(super) fn advice<'a>(imports: impl IntoIterator<Item = &'a str>) -> Option<&'static str> {
    let of = |import: &str| MAKERS.iter().find(|(beginning, _)| import.starts_with(beginning));
    imports.into_iter().find_map(of).map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tool_is_known_by_what_it_imports() {
        for (import, tool) in [
            ("wbg __wbg_log_1d3ae0273d8f4f8a", "wasm-bindgen"),
            ("gojs runtime.wasmExit", "GOOS=wasip1"),
            ("env emscripten_resize_heap", "Emscripten"),
            ("env abort", "AssemblyScript"),
            ("fermyon:spin/key-value@2.0.0", "Spin"),
        ] {
            assert!(
                advice(["test:other/thing", import]).is_some_and(|advice| advice.contains(tool)),
                "{import}"
            );
        }
        assert_eq!(advice(["test:missing/thing", "env memory"]), None);
    }
}
