//! The evil programs: core modules of WASI 0.1, one evil each. They need no tools to be built, and are as small as evil is.

/// A program, and how it ends if nobody else is there.
pub(super) struct Evil {
    pub(super) name: &'static str,
    /// Its items: functions, tables, memories. All have `$main`, and [`IMPORTS`].
    items: String,
    pub(super) end: End,
}

/// The end of an evil program that is run by itself with little memory and little time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Its `timeout` ends it: code 124.
    Timeout,
    /// It traps, or its memory is used up: code 134.
    Trap,
    /// By itself, with this code.
    Exit(i32),
}

impl End {
    pub(super) fn code(self) -> i32 {
        match self {
            End::Timeout => 124,
            End::Trap => 134,
            End::Exit(code) => code,
        }
    }
}

impl Evil {
    /// The words that tell which bound has ended it, with its numbers, if one has.
    pub(super) fn said(&self) -> &'static str {
        match (self.end, self.name) {
            (End::Timeout, _) => " s of 0.7 s)",
            // That is more than any memory has, whatever its limit.
            (End::Trap, "grows-by-all-at-once") => "trapped: ",
            (End::Trap, name) if name.starts_with("grows-") => ", the limit is 8 MiB)",
            (End::Trap, name) if name.starts_with("recurs") => "(stack: the limit is 512 KiB)",
            (End::Trap, _) => "trapped: ",
            (End::Exit(_), _) => "",
        }
    }

    /// The module.
    pub(super) fn wasm(&self) -> Vec<u8> {
        let Evil { name, items, .. } = self;
        let memory = "(memory (export \"memory\") 2)";
        let text = format!("(module {IMPORTS} {memory} {items} (export \"_start\" (func $main)))");
        wat::parse_str(text).unwrap_or_else(|err| panic!("{name}: {err}"))
    }
}

const IMPORTS: &str = r#"
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_renumber" (func $fd_renumber (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sched_yield" (func $sched_yield (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_raise" (func $proc_raise (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
    (import "wasi_snapshot_preview1" "path_open"
        (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))"#;

/// Does this for ever.
fn for_ever(code: &str) -> String {
    format!("(func $main (loop $again {code} (br $again)))")
}

/// Once.
fn once(code: &str) -> String {
    format!("(func $main {code})")
}

/// Writes a piece of memory to a stream for ever, whose bytes are all this one.
fn writes(stream: u32, byte: u8, bytes: u32) -> String {
    format!(
        "(func $main (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const {bytes}))
            (memory.fill (i32.const 1024) (i32.const {byte}) (i32.const {bytes}))
            (loop $again (drop (call $fd_write (i32.const {stream}) (i32.const 0) (i32.const 1) (i32.const 8))) (br $again)))"
    )
}

pub(super) fn evils() -> Vec<Evil> {
    use End::{Exit, Timeout, Trap};
    let evil = |name, end, items: String| Evil { name, items, end };
    vec![
        // Time.
        evil("loops", Timeout, for_ever("")),
        evil("loops-at-its-start", Timeout, "(start $spin) (func $spin (loop $again (br $again))) (func $main)".into()),
        evil("calls-without-end", Timeout, "(func $f) (func $main (loop $again (call $f) (br $again)))".into()),
        evil("yields-without-end", Timeout, for_ever("(drop (call $sched_yield))")),
        evil("reads-the-clock-without-end", Timeout, for_ever("(drop (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 8)))")),
        evil("fills-its-memory-without-end", Timeout, for_ever("(memory.fill (i32.const 0) (i32.const 7) (i32.const 131072))")),
        evil("copies-its-memory-without-end", Timeout, for_ever("(memory.copy (i32.const 0) (i32.const 1) (i32.const 131071))")),
        evil("asks-for-random-bytes-without-end", Timeout, for_ever("(drop (call $random_get (i32.const 0) (i32.const 65536)))")),
        evil("polls-nothing-without-end", Timeout, for_ever("(drop (call $poll_oneoff (i32.const 0) (i32.const 8192) (i32.const 0) (i32.const 16)))")),
        evil("reads-its-input-without-end", Timeout, for_ever("(i32.store (i32.const 4) (i32.const 8)) (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)))")),
        // Memory.
        evil("grows-and-traps", Trap, once("(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable")),
        evil("grows-without-end", Timeout, for_ever("(drop (memory.grow (i32.const 1)))")),
        evil("grows-by-all-at-once", Trap, once("(drop (memory.grow (i32.const 65535))) unreachable")),
        evil("grows-and-touches", Trap, "(func $main (local $at i32) (loop $again
            (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
            (loop $touch (i32.store8 (local.get $at) (i32.const 1)) (local.set $at (i32.add (local.get $at) (i32.const 4096))) (br $touch)))".into()),
        evil("grows-a-table", Trap, "(table $t 1 funcref) (func $main
            (loop $again (br_if $again (i32.ne (table.grow $t (ref.null func) (i32.const 100000)) (i32.const -1)))) unreachable)".into()),
        evil("grows-a-table-without-end", Timeout, "(table $t 1 funcref) (func $main (loop $again
            (drop (table.grow $t (ref.null func) (i32.const 1))) (br $again)))".into()),
        // The stack.
        evil("recurs", Trap, "(func $main (call $main))".into()),
        evil("recurs-with-large-frames", Trap, format!("(func $f (param i64) {} (call $f (i64.add (local.get 0) (i64.const 1)))) (func $main (call $f (i64.const 0)))", "(local i64)".repeat(200))),
        evil("recurs-by-a-table", Trap, "(type $v (func)) (table 1 funcref) (elem (i32.const 0) $main) (func $main (call_indirect (type $v) (i32.const 0)))".into()),
        // Faults.
        evil("is-unreachable", Trap, once("unreachable")),
        evil("traps-at-its-start", Trap, "(start $bad) (func $bad unreachable) (func $main)".into()),
        evil("divides-by-zero", Trap, once("(drop (i32.div_u (i32.const 1) (i32.const 0)))")),
        evil("reads-outside-of-its-memory", Trap, once("(drop (i32.load (i32.const -4)))")),
        evil("writes-outside-of-its-memory", Trap, once("(i64.store offset=4294967295 (i32.const -1) (i64.const 1))")),
        evil("calls-null", Trap, "(type $v (func)) (table 1 funcref) (func $main (call_indirect (type $v) (i32.const 0)))".into()),
        evil("calls-by-a-false-type", Trap, "(type $w (func (param i64))) (table 1 funcref) (elem (i32.const 0) $main) (func $main (call_indirect (type $w) (i64.const 1) (i32.const 0)))".into()),
        evil("exits-at-once", Exit(1), once("(call $proc_exit (i32.const 1))")),
        evil("exits-with-a-large-code", Exit(255), once("(call $proc_exit (i32.const 255))")),
        // The host's services.
        evil("writes-lines-without-end", Timeout, writes(1, b'\n', 500)),
        evil("writes-one-line-without-end", Timeout, writes(1, b'x', 500)),
        evil("writes-no-text", Timeout, writes(2, 0xff, 500)),
        evil("writes-escapes", Timeout, writes(2, 0x1b, 500)),
        evil("writes-from-outside-of-its-memory", Trap, "(func $main (i32.store (i32.const 0) (i32.const -8)) (i32.store (i32.const 4) (i32.const 4096))
            (if (i32.ne (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)) (i32.const 0)) (then unreachable)))".into()),
        evil("writes-a-million-pieces", Timeout, for_ever("(drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 16000) (i32.const 16)))")),
        evil("closes-what-it-does-not-have", Timeout, "(func $main (local $fd i32) (loop $again (drop (call $fd_close (local.get $fd)))
            (local.set $fd (i32.add (local.get $fd) (i32.const 1))) (br $again)))".into()),
        evil("renumbers-without-end", Timeout, for_ever("(drop (call $fd_renumber (i32.const 1) (i32.const 2))) (drop (call $fd_renumber (i32.const 2) (i32.const 1)))")),
        evil("opens-what-is-not-granted", Timeout, for_ever("(drop (call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 64)))")),
        evil("reads-its-environment-out-of-bounds", Trap, once("(drop (call $environ_get (i32.const -4) (i32.const -4))) unreachable")),
        evil("waits-for-four-million-years", Timeout, "(func $main (i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const -1))
            (loop $again (drop (call $poll_oneoff (i32.const 0) (i32.const 4096) (i32.const 1) (i32.const 8))) (br $again)))".into()),
        evil("waits-for-a-thousand-things", Timeout, for_ever("(drop (call $poll_oneoff (i32.const 0) (i32.const 65536) (i32.const 1000) (i32.const 8)))")),
    ]
}
