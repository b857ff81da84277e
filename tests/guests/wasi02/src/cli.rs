//! `wasi:cli`: what a program is told. Its caller passes `--env A=1 --env EMPTY= --env U=ü` and the arguments
//! `"a b" "" ü --x`.

use wasip2::cli::{environment, terminal_stdin, terminal_stdout};

pub(crate) const CASES: &[crate::Case] = &[
    ("arguments", |_| {
        let arguments = environment::get_arguments();
        assert_eq!(arguments[1..], ["cli/arguments", "a b", "", "ü", "--x"]);
        // As it was named, without its folders.
        assert_eq!(arguments[0], "wasi02.wasm");
        assert_eq!(std::env::args().collect::<Vec<_>>(), arguments);
    }),
    ("environment", |_| {
        let expected = [("A", "1"), ("EMPTY", ""), ("U", "ü")];
        let found = environment::get_environment();
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, expected);
        assert_eq!(std::env::var("U").as_deref(), Ok("ü"));
    }),
    ("no_working_directory", |_| assert_eq!(environment::initial_cwd(), None)),
    ("no_terminal", |_| {
        assert!(terminal_stdin::get_terminal_stdin().is_none());
        assert!(terminal_stdout::get_terminal_stdout().is_none());
    }),
    ("streams_are_many_handles_of_one", |_| {
        for text in ["", " "] {
            wasip2::cli::stdout::get_stdout().blocking_write_and_flush(text.as_bytes()).unwrap();
        }
        let output = wasip2::cli::stdout::get_stdout();
        assert!(output.check_write().unwrap() > 0);
        output.write(b"").unwrap();
        output.blocking_flush().unwrap();
        output.subscribe().block();
        output.blocking_write_zeroes_and_flush(0).unwrap();
    }),
];
