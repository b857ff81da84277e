//! Files that are no component, that want more than any may have, or that were built for something else: each is refused
//! by name, by `check` and `run` alike, before anything is compiled.

use std::fs::{self, File};
use std::os::unix::fs::symlink;

use rustix::fs::{CWD, FileType, mknodat};

use crate::harness::{Formation, Host};

/// A formation whose one type is called by nothing but its component's exports.
fn formation(component: &str, keys: &str) -> Formation {
    Formation::new().table(&format!("[process.web]\ncomponent = {component:?}\n{keys}"))
}

fn with_text(text: &str, keys: &str) -> Formation {
    let formation = formation("app.wasm", keys);
    fs::write(formation.path("app.wasm"), wat::parse_str(text).unwrap()).unwrap();
    formation
}

/// `check` and `run` say this, and end with the code of a component that can't be used.
#[track_caller]
fn refused(formation: &Formation, expected: &str) {
    refused_with(4, formation, expected);
}

#[track_caller]
fn refused_with(code: i32, formation: &Formation, expected: &str) {
    for ended in [formation.cli(["check"]), formation.run_to_end()] {
        let ended = ended.never_panicked();
        assert_eq!(ended.code, code, "{ended:#?}");
        assert!(ended.stderr.contains(expected), "{expected}\n{ended:#?}");
        let unsafe_text = |text: &str| text.chars().any(|it| it.is_control() && it != '\n');
        assert!(!unsafe_text(&ended.stderr), "{ended:#?}");
    }
}

#[test]
fn only_a_regular_file_is_a_component() {
    let there = formation("there", "");
    let place = there.path("there");
    symlink("/dev/zero", &place).unwrap();
    refused(&there, "it is a device, and a regular file is expected");
    fs::remove_file(&place).unwrap();
    mknodat(CWD, &place, FileType::Fifo, 0o600.into(), 0).unwrap();
    refused(&there, "it is a named pipe, and a regular file is expected");
    fs::remove_file(&place).unwrap();
    File::create(&place).unwrap().set_len(100 << 30).unwrap();
    refused(&there, "is larger than 256MiB");
}

#[test]
fn a_pipe_that_nobody_writes_to_is_not_waited_for() {
    let formation = Formation::new();
    let pipe = formation.path("app.wasm");
    mknodat(CWD, &pipe, FileType::Fifo, 0o600.into(), 0).unwrap();
    let ended = formation.cli(["run", "app.wasm"]);
    assert!(ended.code == 2 && ended.stderr.contains("doesn't begin as WebAssembly does"), "{ended:#?}");
    let ended = formation.cli(["compile", "app.wasm"]);
    assert!(ended.code == 4 && ended.stderr.contains("a named pipe"), "{ended:#?}");
}

#[test]
fn a_component_that_multiplies_itself_is_refused() {
    let mut text = "(component (component $c0)".to_owned();
    for level in 1..=24 {
        let before = level - 1;
        text += &format!(
            "(component $c{level} (alias outer 1 $c{before} (component $b)) (instance (instantiate $b)) (instance (instantiate $b)))"
        );
    }
    refused(&with_text(&(text + "(instance (instantiate $c24)))"), ""), "more than 1000 component instances");
}

#[test]
fn a_component_with_too_many_names_is_refused() {
    let imports: String = (0..60_000).map(|n| format!("(import \"a{n}\" (func))")).collect();
    refused(&with_text(&format!("(component {imports})"), ""), "it has 60000 imports, more than 10000");
    let imports: String = (0..60_000).map(|n| format!("(import \"p{n}\" \"f\" (func))")).collect();
    let module = format!("(module {imports} (func (export \"_start\")))");
    refused(&with_text(&module, ""), "it has 60000 imports, more than 10000");
    let exports: String = (0..60_000).map(|n| format!("(export \"f{n}\" (func 0))")).collect();
    refused(&with_text(&format!("(module (func) {exports})"), ""), "it has 60000 exports, more than 10000");
}

#[test]
fn a_component_with_too_many_memories_is_refused() {
    let memories = "(memory 1)".repeat(60);
    let text = format!(
        "(component (core module $m {memories}) (core instance (instantiate $m)) (core instance (instantiate $m)))"
    );
    refused(&with_text(&text, ""), "one instance of it has more than 100 memories");
}

#[test]
fn a_component_that_begins_with_more_than_its_memory_is_refused() {
    let command = |items: &str| format!("(module {items} (func (export \"_start\")))");
    let large = with_text(&command("(memory 4096)"), "");
    refused_with(
        2,
        &large,
        "begins with 256MiB of memory and tables, and its `memory` is 128MiB: it needs 256MiB or more",
    );
    let table = with_text(&command("(table 300000 funcref)"), "memory = \"2MiB\"");
    refused_with(2, &table, "and its `memory` is 2MiB: it needs 3MiB or more");
    let both = with_text(&command("(memory i64 0x1_0000_0000_0000)"), "");
    refused_with(2, &both, "and its `memory` is 128MiB");
}

#[test]
fn a_table_that_begins_with_more_elements_than_any_may_have_is_refused() {
    let table = |elements: u32, keys: &str| {
        with_text(&format!("(module (table {elements} funcref) (func (export \"_start\")))"), keys)
    };
    let expected = "has a table that begins with 200001 elements, and 200000 are the most that one may have";
    for keys in ["run = \"release\"", "run = \"always\"", "queue = \"q\"", "every = \"1h\""] {
        refused(&table(200_001, keys), expected);
    }
    Host::run(&table(200_000, "run = \"release\"")).stop();
    let by_hand = table(200_001, "run = \"never\"");
    let ended = by_hand.cli(["exec", "web"]);
    assert!(ended.code == 4 && ended.stderr.contains(expected), "{ended:#?}");
    // A program that a person runs without a formation may be any.
    assert_eq!(by_hand.cli(["run", "app.wasm"]).code, 0);
}

#[test]
fn a_pre_release_of_wasi_is_told_from_the_release() {
    let early = "(component (import \"wasi:http/types@0.3.0-rc-2026-01-06\" (instance)))";
    let expected =
        "is built for the pre-release wasi:http/types@0.3.0-rc-2026-01-06, which differs from 0.3.0";
    refused(&with_text(early, "run = \"never\""), "exports nothing");
    let main = |import: &str| {
        format!(
            "(component (import \"{import}\" (instance)) (core module $m (func (export \"run\") (result i32) i32.const 0))
             (core instance $i (instantiate $m)) (type $r (result))
             (func $run (result $r) (canon lift (core func $i \"run\")))
             (instance $run (export \"run\" (func $run))) (export \"wasi:cli/run@0.2.6\" (instance $run)))"
        )
    };
    refused(&with_text(&main("wasi:http/types@0.3.0-rc-2026-01-06"), ""), expected);
    refused(&with_text(&main("wasi:io/poll@0.2.0-rc-2023-12-05"), ""), "which differs from 0.2.0");
    let formation = with_text(&main("test:missing/thing"), "");
    refused(&formation, "imports test:missing/thing, which nothing here provides");
}

#[test]
fn functions_that_wasi_0_1_lacks_are_named() {
    let module =
        "(module (import \"wasi_snapshot_preview1\" \"sock_open\" (func)) (func (export \"_start\")))";
    refused(&with_text(module, ""), "imports wasi_snapshot_preview1 sock_open, which nothing here provides");
    let module = "(module (import \"env\" \"\\1b[2J\\n\\e2\\80\\ae\" (func)) (func (export \"_start\")))";
    refused(&with_text(module, ""), "imports env \\u{1b}[2J");
}

#[test]
fn the_default_function_of_a_module_is_its_main() {
    let module = |name: &str| {
        format!(
            "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
             (func (export \"{name}\") (call $exit (i32.const 7))))"
        )
    };
    for name in ["", "_start"] {
        let formation = with_text(&module(name), "");
        assert_eq!(formation.cli(["run", "app.wasm"]).code, 7, "{name:?}");
    }
    refused(&with_text(&module("main"), ""), "without a function `_start`");
}

#[test]
fn imports_that_are_missing_may_trap() {
    let component = "(component
        (import \"test:missing/thing\" (instance $missing (export \"f\" (func))))
        (core func $f (canon lower (func $missing \"f\")))
        (core module $m (import \"\" \"f\" (func $f)) (func (export \"run\") (result i32) i32.const 0)
            (func (export \"bad\") (result i32) call $f i32.const 0))
        (core instance $i (instantiate $m (with \"\" (instance (export \"f\" (func $f))))))
        (type $r (result))
        (func $run (result $r) (canon lift (core func $i \"run\")))
        (instance $run (export \"run\" (func $run))) (export \"wasi:cli/run@0.2.6\" (instance $run)))";
    refused(&with_text(component, "run = \"release\""), "`missing_imports = \"trap\"` lets it run");
    let trapping = |text: &str| with_text(text, "run = \"release\"\nmissing_imports = \"trap\"");
    Host::run(&trapping(component)).stop();
    let ended = trapping(
        &component
            .replace("\"bad\"", "\"other\"")
            .replace("\"run\") (result i32) i32.const 0", "\"run\") (result i32) call $f i32.const 0"),
    )
    .run_to_end();
    assert!(ended.code == 3 && ended.stderr.contains("test:missing/thing"), "{ended:#?}");
}

#[test]
fn a_component_may_be_text() {
    const TOOL: &str = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\08\00\00\00\06\00\00\00hello\n")
        (func (export "_start") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 20)))))"#;
    let formation = Formation::web("")
        .table("[process.tool]\ncomponent = \"tool.wat\"\nrun = \"release\"")
        .with_file("tool.wat", &format!(";; says hello\n{TOOL}"));
    formation.cli(["check"]).done();
    let host = Host::run(&formation);
    host.stdout().wait_for("hello");
    // It is kept for a rollback, and compared, by what it means.
    let formation = formation.with_file("tool.wat", TOOL);
    let said = host.cli(["deploy", "--dry-run"]).done();
    assert!(said.contains("nothing changes"), "{said}");
    let formation = formation.with_file("tool.wat", &TOOL.replace("hello", "howdy"));
    host.cli(["deploy"]).done();
    host.stdout().wait_for("howdy");
    formation.cli(["compile", "tool.wat"]).done();
    let formation = formation.with_file("tool.wat", &TOOL.replace("drop", "dorp"));
    let ended = formation.cli(["check"]).failed(4, "tool.wat is not valid WebAssembly text: ");
    assert!(ended.stderr.contains("dorp"), "{ended:#?}");
}
