//! A command that does what its arguments say.
//!
//! | arguments | what |
//! | --- | --- |
//! | none | prints `done` |
//! | `echo WORDS` | prints them |
//! | `env` | prints a line `NAME=value` for each variable |
//! | `cat` | copies stdin to stdout |
//! | `touch PATH` | makes an empty file |
//! | `open PATH COUNT` | opens a file so often, and prints how often it could and why no more; then the same again, closing each |
//! | `fill PATH COUNT` | appends so many pieces of 4 KiB to a file, and prints how many it could and why no more |
//! | `place PATH POSITION` | writes a byte there, and prints how that went |
//! | `resize PATH BYTES` | the same for a file's size |
//! | `make DIRECTORY COUNT` | makes so many empty files, and prints how many it could and why no more |
//! | `list DIRECTORY` | prints how many entries it has |
//! | `sleep MS` | waits, then prints `slept` |
//! | `exit CODE` | exits with it: a component of WASI 0.2 can only say 0 or 1, a core module any |
//! | `wait PATH` | exits with 1 where there is no such file; otherwise prints `waits`, and never ends |
//! | `trap`, `loop` | traps, or never ends |

use std::error::Error;
use std::io::{Seek, Write};
use std::time::Duration;
use std::{env, fs, hint, io, process, thread};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => println!("done"),
        ["echo", ref words @ ..] => println!("{}", words.join(" ")),
        ["env"] => env::vars().for_each(|(name, value)| println!("{name}={value}")),
        ["cat"] => drop(io::copy(&mut io::stdin(), &mut io::stdout())?),
        ["touch", path] => drop(fs::File::create(path)?),
        ["open", path, count] => {
            let count: usize = count.parse()?;
            let mut files = Vec::new();
            let why = loop {
                match fs::File::open(path) {
                    Ok(file) if files.len() < count => files.push(file),
                    Ok(_) => break "enough".to_string(),
                    Err(error) => break error.to_string(),
                }
            };
            println!("{} at once: {why}", files.len());
            drop(files);
            let closed = (0..count).filter(|_| fs::File::open(path).is_ok()).count();
            println!("{closed} one after another");
        }
        ["fill", path, count] => {
            let mut file = fs::OpenOptions::new().append(true).create(true).open(path)?;
            report(count.parse()?, |_| file.write_all(&[b'x'; 4096]));
        }
        ["place", path, position] => {
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
            file.seek(io::SeekFrom::Start(position.parse()?))?;
            report(1, |_| file.write_all(b"x"));
        }
        ["resize", path, bytes] => {
            let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
            let bytes = bytes.parse()?;
            report(1, |_| file.set_len(bytes));
        }
        ["make", directory, count] => {
            report(count.parse()?, |n| fs::File::create(format!("{directory}/{n}")).map(drop));
        }
        ["list", directory] => println!("{}", fs::read_dir(directory)?.count()),
        ["sleep", ms] => {
            thread::sleep(Duration::from_millis(ms.parse()?));
            println!("slept");
        }
        ["wait", path] => {
            fs::metadata(path)?;
            println!("waits");
            thread::sleep(Duration::MAX / 2);
        }
        ["exit", code] => process::exit(code.parse()?),
        ["trap"] => panic!("asked to trap"),
        ["loop"] => loop {
            hint::black_box(());
        },
        _ => return Err(format!("nothing this command does: {arguments:?}").into()),
    }
    Ok(())
}

/// Does something so often, and prints how often it went well and why no more.
fn report(count: usize, mut act: impl FnMut(usize) -> io::Result<()>) {
    for done in 0..count {
        if let Err(error) = act(done) {
            return println!("{done}: {error}");
        }
    }
    println!("{count}: enough");
}
