//! A command of WASI 0.3 that is a program, not a library: its toolchain puts a `main` of WASI 0.2 beside it.

wasip3::cli::command::export!(Command);

struct Command;

impl wasip3::exports::cli::run::Guest for Command {
    async fn run() -> Result<(), ()> {
        println!("the main of 0.3");
        Ok(())
    }
}

fn main() {
    println!("the main of 0.2");
}
