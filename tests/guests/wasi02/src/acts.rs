//! Acts that only the caller can judge: bytes on the standard streams, exit codes, endings.
//!
//! | `do` | what |
//! | --- | --- |
//! | `cat` | copies stdin to stdout, byte by byte as it comes |
//! | `ask` | prints `name?`, reads a line, prints `hello LINE`, until stdin ends |
//! | `bytes` | prints all 256 bytes on stdout and, backwards, on stderr, without a line end |
//! | `flood` | writes to stdout until that fails, then says why on stderr, and exits with 3 |
//! | `take N` | reads N bytes of stdin, and no more |
//! | `terminals` | prints which of the three streams is a terminal |
//! | `exit ok`, `exit err`, `exit N` | by `wasi:cli/exit` |
//! | `arguments`, `environment` | prints each in a line of its own |
//! | `wait` | prints `waiting`, and waits for ever |
//! | `spin` | prints `spinning`, and computes for ever |
//! | `grow`, `grow MIB` | takes memory until there is no more, or this much |
//! | `trap` | traps |
//! | `connect ADDRESS:PORT` | as it says |

use std::io::{BufRead, Read, Write, stdin, stdout};
use std::time::Duration;

use wasip2::cli::{environment, exit, terminal_stderr, terminal_stdin, terminal_stdout};
use wasip2::io::streams::StreamError;

pub(crate) fn act(arguments: &[String]) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["cat"] => cat(),
        ["ask"] => ask(),
        ["bytes"] => bytes(),
        ["flood"] => flood(),
        ["take", count] => {
            let mut taken = vec![0; count.parse().unwrap()];
            stdin().read_exact(&mut taken).unwrap();
            stdout().write_all(&taken).and_then(|()| stdout().flush()).unwrap();
        }
        ["terminals"] => println!(
            "stdin {} stdout {} stderr {}",
            terminal_stdin::get_terminal_stdin().is_some(),
            terminal_stdout::get_terminal_stdout().is_some(),
            terminal_stderr::get_terminal_stderr().is_some()
        ),
        ["exit", "ok"] => exit::exit(Ok(())),
        ["exit", "err"] => exit::exit(Err(())),
        ["exit", code] => exit::exit_with_code(code.parse().unwrap()),
        ["arguments", ..] => environment::get_arguments().iter().for_each(|argument| println!("{argument}")),
        ["environment"] => {
            environment::get_environment().iter().for_each(|(name, value)| println!("{name}={value}"));
        }
        ["wait"] => {
            println!("waiting");
            std::thread::sleep(Duration::from_secs(3600));
        }
        ["spin"] => {
            println!("spinning");
            loop {
                std::hint::black_box(());
            }
        }
        ["grow"] => {
            let mut taken: Vec<Vec<u8>> = Vec::new();
            loop {
                taken.push(std::hint::black_box(vec![1; 1 << 20]));
            }
        }
        ["grow", mib] => {
            let taken: Vec<Vec<u8>> = (0..mib.parse().unwrap()).map(|_| vec![1; 1 << 20]).collect();
            println!("took {} MiB", std::hint::black_box(taken).len());
        }
        ["trap"] => std::process::abort(),
        ["connect", address] => crate::sockets::connect_to(address),
        _ => panic!("nothing it does: {arguments:?}"),
    }
}

fn cat() {
    let input = wasip2::cli::stdin::get_stdin();
    let output = wasip2::cli::stdout::get_stdout();
    loop {
        match input.blocking_read(4096) {
            Ok(bytes) => output.blocking_write_and_flush(&bytes).unwrap(),
            Err(StreamError::Closed) => return,
            Err(err) => panic!("{err:?}"),
        }
    }
}

fn ask() {
    let mut lines = stdin().lock().lines();
    loop {
        print!("name?\n");
        stdout().flush().unwrap();
        let Some(line) = lines.next() else { return };
        println!("hello {}", line.unwrap());
    }
}

fn bytes() {
    let all: Vec<u8> = (0..=255).collect();
    let backwards: Vec<u8> = (0..=255).rev().collect();
    wasip2::cli::stdout::get_stdout().blocking_write_and_flush(&all).unwrap();
    wasip2::cli::stderr::get_stderr().blocking_write_and_flush(&backwards).unwrap();
}

fn flood() {
    let output = wasip2::cli::stdout::get_stdout();
    loop {
        if let Err(err) = output.blocking_write_and_flush(&[b'x'; 4096]) {
            let why = match err {
                StreamError::Closed => "closed".to_owned(),
                StreamError::LastOperationFailed(err) => err.to_debug_string(),
            };
            eprintln!("{why}");
            exit::exit_with_code(3);
        }
    }
}
