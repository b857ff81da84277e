//! The code that is generated from `wit/`. It has no docs of its own: the WIT has them.
#![allow(missing_docs)]

/// The imports: `wasmhost:job/queue`.
pub(crate) mod producer {
    wasmtime::component::bindgen!({
        path: "../../wit/job",
        world: "producer",
        imports: { default: async | trappable },
        require_store_data_send: true,
    });
}

/// The job handler's export.
pub(crate) mod worker {
    wasmtime::component::bindgen!({
        path: "../../wit/job",
        world: "worker",
        exports: { default: async },
        imports: { default: async | trappable },
        with: { "wasmhost:job/queue": super::producer::wasmhost::job::queue },
        require_store_data_send: true,
    });
}

/// The tick handler's export.
pub(crate) mod ticker {
    wasmtime::component::bindgen!({
        path: "../../wit/clock",
        world: "ticker",
        exports: { default: async },
        require_store_data_send: true,
    });
}

/// The job handler's export of WASI 0.3.
pub(crate) mod async_worker {
    wasmtime::component::bindgen!({
        path: "../../wit/job",
        world: "async-worker",
        exports: { default: async | store },
        imports: { default: async | trappable },
        with: {
            "wasmhost:job/queue": super::producer::wasmhost::job::queue,
            "wasmhost:job/types": super::worker::wasmhost::job::types,
        },
        require_store_data_send: true,
    });
}

/// The tick handler's export of WASI 0.3.
pub(crate) mod async_ticker {
    wasmtime::component::bindgen!({
        path: "../../wit/clock",
        world: "async-ticker",
        exports: { default: async | store },
        with: { "wasmhost:clock/types": super::ticker::wasmhost::clock::types },
        require_store_data_send: true,
    });
}
