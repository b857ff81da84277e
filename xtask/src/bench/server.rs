//! The servers that are measured, as processes of their own on ports of their own.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long a server may take to start: it compiles its component first.
const START_MAX: Duration = Duration::from_secs(60);

/// A server that runs until this is dropped.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) url: String,
    process: Child,
    /// What the server was given, which goes with it.
    _folder: Option<tempfile::TempDir>,
}

impl Server {
    /// A formation with the component as its one web type, and no settings.
    pub(crate) fn wasmhost(wasmhost: &Path, component: &Path) -> Result<Server> {
        let folder = tempfile::tempdir()?;
        let formation = folder.path().join("formation.toml");
        let text = format!(
            "http = {{ listen = \"127.0.0.1:0\" }}\n[process.web]\ncomponent = \"{}\"\ncount = 16\n",
            component.display()
        );
        std::fs::write(&formation, text)?;
        let mut process = Command::new(wasmhost)
            .arg("run")
            .arg(&formation)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("wasmhost did not start")?;
        let err = process.stderr.take().context("wasmhost has no standard error")?;
        let mut lines = BufReader::new(err).lines();
        let url = lines.find_map(|line| Some(line.ok()?.strip_prefix("Serving HTTP on ")?.to_owned()));
        // The rest has to go somewhere, or the host would stop at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let url = url.context("wasmhost ended before it served")?;
        let server = Server { name: "wasmhost".into(), url, process, _folder: Some(folder) };
        server.wait()
    }

    /// `wasmtime serve` with these options.
    pub(crate) fn wasmtime(
        name: &str,
        wasmtime: &Path,
        component: &Path,
        options: &[&str],
    ) -> Result<Server> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let process = Command::new(wasmtime)
            .args(["serve", "-Scli=y", "--addr", &format!("127.0.0.1:{port}")])
            .args(options)
            .arg(component)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("wasmtime did not start")?;
        let url = format!("http://127.0.0.1:{port}/");
        Server { name: name.into(), url, process, _folder: None }.wait()
    }

    /// Waits until it accepts connections.
    fn wait(mut self) -> Result<Server> {
        let address = self.url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let until = Instant::now() + START_MAX;
        while TcpStream::connect(&address).is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("{} ended before it served: {status}", self.name);
            }
            ensure!(Instant::now() < until, "{} doesn't listen on {address}", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(self)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which the measurement has noticed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Builds the program as users run it.
pub(crate) fn build_wasmhost(repository: &Path) -> Result<PathBuf> {
    let status = crate::cargo_command()
        .args(["build", "--release", "--locked", "--package", "wasmhost"])
        .current_dir(repository)
        .status()?;
    ensure!(status.success(), "wasmhost could not be built");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository.join("target"), PathBuf::from);
    Ok(target.join("release/wasmhost"))
}

/// `WASMTIME`, or the one on the path.
pub(crate) fn find_wasmtime() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("WASMTIME") {
        let given = PathBuf::from(given);
        ensure!(given.is_file(), "WASMTIME is {}, which is no file", given.display());
        return Ok(given);
    }
    match on_path("wasmtime") {
        Some(found) => Ok(found),
        None => bail!(
            "wasmtime is not on the path: install it with `cargo install wasmtime-cli --version 48.0.8 --locked`, or set WASMTIME to one"
        ),
    }
}

/// A program that the shell would find.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
