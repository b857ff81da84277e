//! The messages about files that are wrong, word for word: one table, in `bad_files.txt`.

use std::ffi::OsString;
use std::path::Path;
use wasmhost_config::{Origin, parse};

fn environment(name: &str) -> Option<OsString> {
    match name {
        "SET" => Some("set".into()),
        "EMPTY" => Some("".into()),
        "SECRET" => Some("s3cr3t-$-Value".into()),
        _ => None,
    }
}

fn problems(file: &str, dotenv: Option<&str>) -> String {
    let origin = Origin {
        file: Path::new("formation.toml"),
        folder: Path::new("/srv/shop"),
        environment: &environment,
        dotenv,
    };
    match parse(file, &origin) {
        Ok(formation) => format!("no problem:\n{}", formation.to_toml()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_bad_file_gets_exactly_its_messages() {
    let mut wrong = Vec::new();
    let cases: Vec<&str> = include_str!("bad_files.txt").split("\n=== ").skip(1).collect();
    for case in &cases {
        let (name, case) = case.split_once('\n').expect("a case has a name");
        let (file, expected) = case.split_once("---\n").expect("a case has a file and messages");
        let found = problems(file, None);
        if found != expected.trim_end() {
            wrong.push(format!("=== {name}\n{}\n--- but found\n{found}", expected.trim_end()));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n\n"));
}

#[test]
fn a_bad_dotenv_is_told_with_the_rest() {
    let file = "name = \"${A}\"\n[process.web]\ncomponent = \"web.wasm\"\ncuont = 1\n";
    assert_eq!(
        problems(file, Some("A=1\noops\n")),
        ".env:2:1: found a line without \"=\", expected KEY=VALUE\n\
         formation.toml:4:1: process.web.cuont: unknown key; did you mean \"count\"?\n\
         2 problems"
    );
}
