//! What `wit-bindgen` makes of `wit/`. Not an API: the export macros of this crate need to reach it.
//!
//! Each world is generated with `pub_export_macro`, so that the library itself describes imports alone, which are
//! dropped from a component that doesn't use them. What is exported is described where the macro is used.

// Generated code calls the canonical ABI, which can't be done safely, and its items are documented in `wit/`.
#![allow(unsafe_code, missing_docs, unreachable_pub, clippy::all)]

/// The world `wasmhost:job/worker`.
pub mod worker {
    wit_bindgen::generate!({
        path: "../../wit/job",
        world: "worker",
        pub_export_macro: true,
        export_macro_name: "export_worker",
        default_bindings_module: "wasmhost_guest::bindings::worker",
    });
}

/// The world `wasmhost:clock/ticker`.
pub mod ticker {
    wit_bindgen::generate!({
        path: "../../wit/clock",
        world: "ticker",
        pub_export_macro: true,
        export_macro_name: "export_ticker",
        default_bindings_module: "wasmhost_guest::bindings::ticker",
    });
}
