//! `cargo xtask demo` takes examples/shop from a clean clone to a formation that serves, in one command. The shop's guests
//! are built beside the host, since their tools come over the network first.

use std::env;
use std::io::{self, BufRead, BufReader, IsTerminal, PipeReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, ensure};

use crate::cargo_command;
use crate::guests::tools;

/// Relative to the repository, where the host is started.
const FORMATION: &str = "examples/shop/formation.toml";

/// The address that [`FORMATION`] listens on.
const SHOP: &str = "http://127.0.0.1:8080";

const INTRODUCTION: &str = "\
Building wasmhost, and beside it the guests of examples/shop. The first time this takes about six
minutes on two cores, and 3 GB in the target folder. Later calls take seconds.
(`cargo install --path crates/cli --locked` installs wasmhost without the demo.)";

/// Builds what the shop needs, says how to try it, and becomes its host: Ctrl-C, other signals and the exit code are
/// the host's own.
pub(crate) fn run(repository: &Path) -> Result<()> {
    println!("{INTRODUCTION}");
    tools::require_c_compiler()?;
    let guests = Guests::build()?;
    let wasmhost = build_host(repository);
    guests.wait()?;
    let wasmhost = wasmhost?;
    let shown = wasmhost.strip_prefix(repository).unwrap_or(&wasmhost).display();
    println!(
        "\nStarting {FORMATION}. Try it in another terminal, in the repository's folder:\n\n    \
         curl -i -d 'item=tea&quantity=2' {SHOP}/orders\n    \
         {shown} -f {FORMATION} ps\n    \
         {shown} -f {FORMATION} scale web=10 worker=4\n\n\
         Ctrl-C ends it.\n"
    );
    let failed = Command::new(&wasmhost).args(["run", FORMATION]).current_dir(repository).exec();
    Err(anyhow!(failed).context(format!("{shown} can't be started")))
}

/// The shop's guests, which another process builds. Its lines are printed as they come, each with a mark.
struct Guests {
    process: Child,
    printer: JoinHandle<()>,
}

impl Guests {
    fn build() -> Result<Guests> {
        let this = env::current_exe().context("where this program is")?;
        let (lines, pipe) = io::pipe()?;
        let mut command = Command::new(this);
        command.args(["guests", "shop"]).stdin(Stdio::null()).stdout(pipe.try_clone()?).stderr(pipe);
        let process = command.spawn().context("this program could not be started again")?;
        // It holds the pipe's other end, and the printer waits until nobody does.
        drop(command);
        Ok(Guests { process, printer: thread::spawn(|| print_marked(lines)) })
    }

    fn wait(mut self) -> Result<()> {
        let status = self.process.wait()?;
        // It ends with the pipe. A printer that panicked has nothing more to say.
        let _ = self.printer.join();
        ensure!(status.success(), "the shop's guests could not be built: see the lines marked `guests:`");
        Ok(())
    }
}

fn print_marked(lines: PipeReader) {
    // Where cargo draws its progress, the line that it is on is cleared first.
    let clear = if io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
    for line in BufReader::new(lines).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        // Nobody reads a closed terminal; the build goes on.
        let _ = writeln!(io::stdout(), "{clear}guests: {}", line.trim_end());
    }
}

/// Builds the `wasmhost` binary and says where it is: cargo puts it beside this program.
fn build_host(repository: &Path) -> Result<PathBuf> {
    let status = cargo_command()
        // With all packages wasmtime has the features that it has in the tests, and is compiled once for both.
        .args(["build", "--locked", "--workspace", "--bin", "wasmhost"])
        .current_dir(repository)
        .status()
        .context("cargo could not be started")?;
    ensure!(status.success(), "cargo could not build wasmhost");
    let this = env::current_exe().context("where this program is")?;
    Ok(this.with_file_name("wasmhost"))
}
