//! The bindings that `wit-bindgen` makes of `wit/`. Not an API: the export macros of this crate need to reach it.
//!
//! Each world is generated with `pub_export_macro`, so that the library itself describes imports alone, which are
//! dropped from a component that doesn't use them. The exports are described where the macro is used.

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

/// The world `wasmhost:job/async-worker`, in the types of [`worker`].
#[cfg(feature = "async")]
pub mod async_worker {
    wasip3::wit_bindgen::generate!({
        path: "../../wit/job",
        world: "async-worker",
        with: {
            "wasmhost:job/types@0.1.0": crate::bindings::worker::wasmhost::job::types,
            "wasmhost:job/queue@0.1.0": crate::bindings::worker::wasmhost::job::queue,
        },
        runtime_path: "wasip3::wit_bindgen::rt",
        pub_export_macro: true,
        export_macro_name: "export_async_worker",
        default_bindings_module: "wasmhost_guest::bindings::async_worker",
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

/// The world `wasmhost:clock/async-ticker`, in the types of [`ticker`].
#[cfg(feature = "async")]
pub mod async_ticker {
    wasip3::wit_bindgen::generate!({
        path: "../../wit/clock",
        world: "async-ticker",
        with: { "wasmhost:clock/types@0.1.0": crate::bindings::ticker::wasmhost::clock::types },
        runtime_path: "wasip3::wit_bindgen::rt",
        pub_export_macro: true,
        export_macro_name: "export_async_ticker",
        default_bindings_module: "wasmhost_guest::bindings::async_ticker",
    });
}
