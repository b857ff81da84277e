//! A command that tries out WASI 0.3, by its WIT documents, and judges for itself: exit code 0, or a message and 1. It
//! is `wasi02`'s counterpart, and takes the same arguments.

mod acts;
mod cli;
mod clocks;
mod filesystem;
mod http;
mod random;
mod sockets;

use std::pin::Pin;
use std::process::exit;

wasip3::cli::command::export!(Command);

struct Command;

type Run = Pin<Box<dyn Future<Output = ()>>>;

/// A case, by its name; it panics where something isn't as it should be.
type Case = (&'static str, fn(Vec<String>) -> Run);

/// A case of an async function.
macro_rules! case {
    ($name:ident) => {
        (stringify!($name), |arguments| Box::pin($name(arguments)))
    };
}
pub(crate) use case;

const AREAS: &[(&str, &[Case])] = &[
    ("cli", cli::CASES),
    ("clocks", clocks::CASES),
    ("filesystem", filesystem::CASES),
    ("http", http::CASES),
    ("random", random::CASES),
    ("sockets", sockets::CASES),
];

impl wasip3::exports::cli::run::Guest for Command {
    async fn run() -> Result<(), ()> {
        std::panic::set_hook(Box::new(|panic| {
            eprintln!("{panic}");
            exit(1);
        }));
        let mut arguments = wasip3::cli::environment::get_arguments().into_iter().skip(1);
        let what = arguments.next().expect("which case?");
        let rest: Vec<String> = arguments.collect();
        match what.as_str() {
            "list" => area(&rest[0]).iter().for_each(|(name, _)| println!("{}/{name}", rest[0])),
            "do" => return acts::act(&rest).await,
            case => {
                let (name, case) = case.split_once('/').expect("AREA/CASE");
                let (_, run) = area(name).iter().find(|(known, _)| *known == case).expect("a case");
                run(rest).await;
            }
        }
        Ok(())
    }
}

fn area(name: &str) -> &'static [Case] {
    AREAS.iter().find(|(known, _)| *known == name).expect("an area").1
}
