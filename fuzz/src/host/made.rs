//! Components and core modules that are made of a fuzzer's bytes. The first byte says how: they are the file itself,
//! changes of a guest of the tests, or choices that wasm-smith makes a module by, which is a command of WASI 0.1 or
//! becomes the code of a component.

use std::fs;
use std::sync::LazyLock;

use wasm_smith::{Config, Module};
use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve, UnresolvedPackageGroup, WorldId};

use super::guest;

/// Guests that are small enough to be compiled often.
const GUESTS: [&str; 3] = ["tick-test", "tick-async", "cmd-test-core"];

/// Bytes that are changed in one.
const CHANGES_MAX: usize = 32;

/// Loops and calls of a module that ends by itself.
const ROUNDS_MAX: u32 = 10_000;

/// The imports of a command of WASI 0.1, as far as they are called.
const COMMAND: &str = r#"
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_fdstat_get" (func (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
  (func (export "_start"))
  (memory (export "memory") 16))
"#;

/// The interfaces that the worlds are made of, each behind those that it uses.
const PACKAGES: [(&str, &str); 7] = [
    ("io.wit", include_str!("../../../wit/deps/wasi-io.wit")),
    ("clocks.wit", include_str!("../../../wit/deps/wasi-clocks.wit")),
    ("filesystem.wit", include_str!("../../../wit/deps/wasi-filesystem.wit")),
    ("http.wit", include_str!("../../../wit/deps/wasi-http.wit")),
    ("job.wit", include_str!("../../../wit/job/job.wit")),
    ("clock.wit", include_str!("../../../wit/clock/clock.wit")),
    ("run.wit", "package wasi:cli@0.2.12;\ninterface run { run: func() -> result; }\n"),
];

/// A world for each kind of handler, by name.
const NAMES: [&str; 5] = ["clock", "worker", "command", "web", ASYNC];
const ASYNC: &str = "async-clock";
const WORLDS: &str = "
package fuzz:worlds;

world clock {
    import wasi:clocks/monotonic-clock@0.2.12;
    import wasi:clocks/wall-clock@0.2.12;
    export wasmhost:clock/handler@0.1.0;
}

world worker {
    import wasmhost:job/queue@0.1.0;
    import wasi:clocks/monotonic-clock@0.2.12;
    export wasmhost:job/handler@0.1.0;
}

world command {
    import wasi:io/streams@0.2.12;
    import wasi:io/poll@0.2.12;
    import wasi:filesystem/types@0.2.12;
    import wasi:filesystem/preopens@0.2.12;
    export wasi:cli/run@0.2.12;
}

world web {
    import wasi:http/types@0.2.12;
    import wasi:http/outgoing-handler@0.2.12;
    import wasi:io/streams@0.2.12;
    export wasi:http/incoming-handler@0.2.12;
}

world async-clock {
    import wasmhost:job/queue@0.1.0;
    import wasi:clocks/monotonic-clock@0.2.12;
    export wasmhost:clock/async-handler@0.1.0;
}
";

/// The file that these bytes make, if they make one.
pub(super) fn made(data: &[u8]) -> Option<Vec<u8>> {
    let (how, rest) = data.split_first()?;
    let ends = how & 0x80 == 0;
    match how & 0x7f {
        0 => Some(rest.to_vec()),
        1 => changed(rest),
        2 => module(&SHAPES.command, ends, rest),
        which => component(usize::from(which) % NAMES.len(), ends, rest),
    }
}

/// A guest with some other bytes. The first one says which guest, and then four are a place and a change each.
fn changed(data: &[u8]) -> Option<Vec<u8>> {
    static FILES: LazyLock<[Vec<u8>; 3]> =
        LazyLock::new(|| GUESTS.map(|name| fs::read(guest(name)).expect("the guest is there")));
    let (which, changes) = data.split_first()?;
    let mut file = FILES[usize::from(*which) % FILES.len()].clone();
    for change in changes.as_chunks::<4>().0.iter().take(CHANGES_MAX) {
        let [a, b, c, by] = *change;
        let place = u32::from_be_bytes([0, a, b, c]) as usize % file.len();
        file[place] ^= by;
    }
    Some(file)
}

/// The modules that others are made after: what they import and export.
struct Shapes {
    command: Vec<u8>,
    resolve: Resolve,
    worlds: [(WorldId, Vec<u8>); NAMES.len()],
}

static SHAPES: LazyLock<Shapes> = LazyLock::new(|| {
    let mut resolve = Resolve::default();
    let mut push = |name: &str, text: &str| {
        let group = UnresolvedPackageGroup::parse(name, text).expect("the interfaces are right");
        resolve.push_group(group).expect("the interfaces fit together")
    };
    for (name, text) in PACKAGES {
        push(name, text);
    }
    let package = push("worlds.wit", WORLDS);
    let worlds = NAMES.map(|name| {
        let world = resolve.select_world(&[package], Some(name)).expect("there is the world");
        let abi = if name == ASYNC { LiftLowerAbi::AsyncCallback } else { LiftLowerAbi::Sync };
        let mut shape = dummy_module(&resolve, world, ManglingAndAbi::Legacy(abi));
        have_memory(&mut shape);
        (world, shape)
    });
    Shapes { command: wat::parse_str(COMMAND).expect("the shape is right"), resolve, worlds }
});

/// Gives a shape memory from the beginning, 1 MiB: what it is given would have no place.
fn have_memory(shape: &mut [u8]) {
    const NONE: [u8; 5] = [5, 3, 1, 0, 0];
    let section = shape.windows(NONE.len()).position(|bytes| bytes == NONE);
    shape[section.expect("it exports a memory") + NONE.len() - 1] = 16;
}

fn module(shape: &[u8], ends: bool, choices: &[u8]) -> Option<Vec<u8>> {
    let config = Config {
        module_shape: Some(shape.to_vec()),
        // These are what no guest may use.
        exceptions_enabled: false,
        shared_everything_threads_enabled: false,
        threads_enabled: false,
        memory64_enabled: false,
        max_tables: 4,
        max_table_elements: 10_000,
        ..Config::default()
    };
    let mut module = Module::new(config, &mut arbitrary::Unstructured::new(choices)).ok()?;
    if ends {
        module.ensure_termination(ROUNDS_MAX).ok()?;
    }
    Some(module.to_bytes())
}

fn component(which: usize, ends: bool, choices: &[u8]) -> Option<Vec<u8>> {
    let (world, shape) = &SHAPES.worlds[which];
    let mut module = module(shape, ends, choices)?;
    embed_component_metadata(&mut module, &SHAPES.resolve, *world, StringEncoding::UTF8).ok()?;
    let encoder = ComponentEncoder::default().validate(false).module(&module);
    encoder.ok()?.encode().ok()
}
