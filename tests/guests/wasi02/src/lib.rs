//! A command that tries out WASI 0.2, by its WIT documents, and judges for itself: exit code 0, or a message and 1.
//!
//! | arguments | what |
//! | --- | --- |
//! | `list AREA` | prints the names of an area's cases |
//! | `AREA/CASE ...` | runs one |
//! | `do WHAT ...` | does what its caller judges: see [`acts`] |

mod acts;
mod cli;
mod clocks;
mod filesystem;
mod http;
mod random;
mod sockets;

use std::process::exit;

wasip2::cli::command::export!(Command);

struct Command;

/// A case, by its name; it panics where something isn't as it should be.
type Case = (&'static str, fn(&[String]));

const AREAS: &[(&str, &[Case])] = &[
    ("cli", cli::CASES),
    ("clocks", clocks::CASES),
    ("filesystem", filesystem::CASES),
    ("http", http::CASES),
    ("random", random::CASES),
    ("sockets", sockets::CASES),
];

impl wasip2::exports::cli::run::Guest for Command {
    fn run() -> Result<(), ()> {
        run();
        Ok(())
    }
}

fn run() {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        exit(1);
    }));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((what, rest)) = arguments.split_first() else { panic!("which case?") };
    match what.as_str() {
        "list" => area(&rest[0]).iter().for_each(|(name, _)| println!("{}/{name}", rest[0])),
        "do" => acts::act(rest),
        case => {
            let (name, case) = case.split_once('/').expect("AREA/CASE");
            let (_, run) = area(name).iter().find(|(known, _)| *known == case).expect("a case");
            run(rest);
        }
    }
}

fn area(name: &str) -> &'static [Case] {
    AREAS.iter().find(|(known, _)| *known == name).expect("an area").1
}
