//! Files that ask for more memory or time than any may have: each is refused by every verb that looks at components, and by
//! a host that serves. The kernel holds these verbs to bounds here, so that one that would take more is ended, and fails.

use std::fs;

use crate::harness::wasm::{COMPONENT, command, name, number, repeated, section};
use crate::harness::{Ended, Formation, Host, Process, versioned_web};

/// Memory and CPU time of a verb: the file, and as much as this; a tenth of a second in a program that is built for speed.
const LIMITS: &str = "ulimit -d 262144; ulimit -t 5";

/// Every evil, as a file, and what is said of it.
fn evils() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    vec![
        ("an empty file", vec![], "the file is empty"),
        ("a text", b"\x1b[2J not WebAssembly".to_vec(), "begins with \"\\x1b[2J not\""),
        (
            "a component in a component in a component",
            nested_components(100_000),
            "more than 100 levels deep",
        ),
        ("a type in a type in a type", nested_types(100_000), "types are nested more than 100 levels deep"),
        (
            "an instance type in an instance type",
            nested_instance_types(100_000),
            "types are nested more than",
        ),
        ("a million functions", command(b"", 1_000_000), "more than 250000 functions"),
        ("four million names of one component", aliases(4_000_000), "more than 1000 components"),
        (
            "a million modules",
            [COMPONENT, &section(1, b"\0asm\x01\0\0\0").repeat(1_000_000)].concat(),
            "more than 1000 modules",
        ),
        ("2^24 instances in a kilobyte", doubling(24), "more than 1000 component instances"),
        ("60,000 imports", imports(60_000, &name("f")), "it has 60000 imports, more than 10000"),
        ("a name of 10 MB", imports(1, &name(&"n".repeat(10_000_000))), "string size out of bounds"),
        (
            "names of 45 MB",
            imports(9_000, &name(&"n".repeat(5_000))),
            "are longer than 524288 bytes, all together",
        ),
        (
            "a name with an escape sequence",
            imports(1, &name("\x1b[2J\u{202e}\n")),
            "imports \\u{1b}[2J\\u{202e}\\n f",
        ),
        ("a name that is no text", imports(1, b"\x02\xff\xfe"), "malformed UTF-8"),
        (
            "a section that says it is longer",
            [COMPONENT, b"\x07\xff\xff\xff\xff\x0f\x01"].concat(),
            "is not a valid component",
        ),
        (
            "a list that says it is longer",
            [COMPONENT, &section(7, b"\xff\xff\xff\xff\x0f")].concat(),
            "is not a valid component",
        ),
        ("tables of eight million elements", tables(), "of memory and tables"),
    ]
}

fn nested_components(levels: usize) -> Vec<u8> {
    let mut inner = COMPONENT.to_vec();
    // From the inside out, which copies what is inside each time: a thousand at once.
    let mut lengths = vec![inner.len()];
    for _ in 1..levels {
        let inner = lengths[lengths.len() - 1];
        lengths.push(COMPONENT.len() + 1 + number(inner).len() + inner);
    }
    let mut file = Vec::new();
    for inner in lengths.iter().rev().skip(1) {
        file.extend([COMPONENT, &[4], &number(*inner)].concat());
    }
    file.append(&mut inner);
    file
}

fn nested_types(levels: usize) -> Vec<u8> {
    [COMPONENT, &section(7, &[&[1], b"\x41\x01\x01".repeat(levels).as_slice(), b"\x7f"].concat())].concat()
}

fn nested_instance_types(levels: usize) -> Vec<u8> {
    [COMPONENT, &section(7, &[&[1], b"\x42\x01\x01".repeat(levels).as_slice(), b"\x7f"].concat())].concat()
}

/// A component in which the one component that it has gets one name after another, each in four bytes.
fn aliases(count: usize) -> Vec<u8> {
    [COMPONENT, &section(4, COMPONENT), &section(6, &repeated(b"\x04\x02\0\0", count))].concat()
}

/// Components of which each instantiates the one before it twice.
fn doubling(levels: usize) -> Vec<u8> {
    let mut text = "(component (component $c0)".to_owned();
    for level in 1..=levels {
        let before = level - 1;
        text += &format!(
            "(component $c{level} (alias outer 1 $c{before} (component $b)) (instance (instantiate $b)) (instance (instantiate $b)))"
        );
    }
    wat::parse_str(text + &format!("(instance (instantiate $c{levels})))")).unwrap()
}

/// A command that imports so many functions of a module of this name.
fn imports(count: usize, module: &[u8]) -> Vec<u8> {
    let import = |n: usize| {
        [module, &name(&format!("f{}", if count == 1 { String::new() } else { n.to_string() })), &[0, 0]]
            .concat()
    };
    let list: Vec<u8> = number(count).into_iter().chain((0..count).flat_map(import)).collect();
    let mut file = command(b"", 1);
    // Behind the types, before the functions, whose numbers begin after those of the imports.
    let at = b"\0asm\x01\0\0\0".len() + section(1, b"\x01\x60\0\0").len();
    file.splice(at..at, section(2, &list));
    file
}

fn tables() -> Vec<u8> {
    let table = "(table 8000000 funcref)".repeat(10);
    wat::parse_str(format!("(module {table} (func (export \"_start\")))")).unwrap()
}

/// A type without a trigger, whose component is this file.
fn formation(file: &[u8]) -> Formation {
    let formation = Formation::new().table("[process.evil]\ncomponent = \"evil.wasm\"");
    fs::write(formation.path("evil.wasm"), file).unwrap();
    formation
}

/// It ended by itself, with the code of a component (or, for what a formation allows, of a formation) and one error.
#[track_caller]
fn refused(evil: &str, ended: Ended, expected: &str) {
    let ended = ended.never_panicked();
    assert!([2, 4].contains(&ended.code), "{evil}: {ended:#?}");
    assert!(ended.stderr.contains(expected), "{evil}: no {expected:?} in {ended:#?}");
    assert!(ended.stderr.len() < 8 << 10, "{evil}: {} bytes", ended.stderr.len());
    let acts = |text: &str| text.chars().any(|char| char.is_control() && char != '\n' || char == '\u{202e}');
    assert!(!acts(&ended.stderr), "{evil}: {ended:#?}");
}

#[test]
fn every_verb_refuses_them_within_a_moment_and_little_memory() {
    for (evil, file, expected) in evils() {
        let formation = formation(&file);
        let by = |verb: &[&str]| {
            let Ok(arguments) = <[&str; 2]>::try_from(verb) else { unreachable!("two words: {verb:?}") };
            Process::start_after(formation.folder(), LIMITS, arguments).wait()
        };
        refused(evil, by(&["check", "--json"]), expected);
        refused(evil, by(&["run", "formation.toml"]), expected);
        refused(evil, by(&["exec", "evil"]), expected);
        // These have no formation: they grant as much memory as is wanted, or look at nothing but the file.
        if expected != "of memory and tables" && !evil.contains("escape sequence") {
            refused(evil, by(&["compile", "evil.wasm"]), expected);
        }
    }
}

#[test]
fn a_file_is_refused_by_run_app_as_by_a_formation() {
    for (evil, file, expected) in evils() {
        // A file that doesn't begin as WebAssembly does isn't taken for one here.
        if file.starts_with(b"\0asm") && expected != "of memory and tables" {
            let ended = Process::start_after(formation(&file).folder(), LIMITS, ["run", "evil.wasm"]).wait();
            refused(evil, ended, expected);
        }
    }
}

#[test]
fn a_host_that_serves_refuses_them_in_a_deploy_and_serves_on() {
    let formation = versioned_web("one", "");
    let host = Host::run(&formation);
    assert_eq!(host.version(), "one");
    let before = host.peak_bytes();
    for (evil, file, expected) in evils() {
        fs::write(formation.path("evil"), &file).unwrap();
        fs::rename(formation.path("evil"), formation.path("web.wasm")).unwrap();
        let ended = host.cli(["deploy"]).never_panicked();
        assert!(ended.code == 1 && ended.stderr.contains(expected), "{evil}: {ended:#?}");
        assert_eq!(host.version(), "one", "{evil}");
    }
    let grown = host.peak_bytes() - before;
    assert!(grown < 256 << 20, "it has taken {grown} bytes more at some time");
    host.stop().done();
}
