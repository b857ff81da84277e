//! `wasi:cli`: what a program is told. Its caller passes `--env A=1 --env EMPTY= --env U=ü` and the arguments
//! `"a b" "" ü --x`.

use wasip3::cli::{environment, terminal_stdin, terminal_stdout};

use crate::case;

pub(crate) const CASES: &[crate::Case] = &[
    case!(arguments),
    case!(environment),
    case!(no_working_directory),
    case!(no_terminal),
    case!(empty_output),
];

async fn arguments(_: Vec<String>) {
    let arguments = environment::get_arguments();
    assert_eq!(arguments, ["wasi03.wasm", "cli/arguments", "a b", "", "ü", "--x"]);
}

async fn environment(_: Vec<String>) {
    let found = environment::get_environment();
    let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(found, [("A", "1"), ("EMPTY", ""), ("U", "ü")]);
}

async fn no_working_directory(_: Vec<String>) {
    assert_eq!(environment::get_initial_cwd(), None);
}

async fn no_terminal(_: Vec<String>) {
    assert!(terminal_stdin::get_terminal_stdin().is_none());
    assert!(terminal_stdout::get_terminal_stdout().is_none());
}

async fn empty_output(_: Vec<String>) {
    let (writer, reader) = wasip3::wit_stream::new();
    let written = wasip3::cli::stdout::write_via_stream(reader);
    drop(writer);
    written.await.unwrap();
}
