//! `cargo xtask bench http`: examples/hello here and under `wasmtime serve`, side by side in one run.
//!
//! Each server is started once and measured in turn, round after round, so that a machine whose speed drifts is as
//! unfair to one as to the other. What counts are the ratios; the medians and the spread are printed beside them.

mod load;
mod machine;
mod report;
mod server;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use load::Load;
use report::{Measured, Report};
use server::Server;

/// Connections that send requests as fast as they are answered.
const CONNECTIONS: [u32; 2] = [16, 64];

const WARM_UP: Duration = Duration::from_secs(2);

/// How a benchmark is run.
pub(crate) struct Options {
    /// How often each server is measured at each number of connections.
    pub(crate) rounds: u32,
    /// Seconds of each measurement.
    pub(crate) seconds: u64,
}

/// Measures, prints, and writes `bench/results/http.{md,json}`.
pub(crate) fn http(repository: &Path, options: &Options) -> Result<()> {
    crate::guests::build(repository, &crate::guests::Which::Quick, false)?;
    let wasmhost = server::build_wasmhost(repository)?;
    let wasmtime = server::find_wasmtime()?;
    let load = Load::find()?;
    let hello = repository.join("examples/hello/hello.wasm");

    let reused = ["--max-instance-reuse-count", "100000"];
    let servers = [
        Server::wasmhost(&wasmhost, &hello)?,
        Server::wasmtime("wasmtime serve, instances reused", &wasmtime, &hello, &reused)?,
        Server::wasmtime("wasmtime serve, defaults", &wasmtime, &hello, &[])?,
    ];
    let mut measured = Vec::new();
    for connections in CONNECTIONS {
        let mut of_these: Vec<Measured> =
            servers.iter().map(|server| Measured::new(&server.name, connections)).collect();
        for server in &servers {
            load.run(&server.url, connections, WARM_UP)?;
        }
        for round in 0..options.rounds {
            for (server, measured) in servers.iter().zip(&mut of_these) {
                let sample = load.run(&server.url, connections, Duration::from_secs(options.seconds));
                let sample = sample.with_context(|| format!("{}, round {}", server.name, round + 1))?;
                eprintln!("c={connections} {}: {:.0} req/s", server.name, sample.requests_per_second);
                measured.samples.push(sample);
            }
        }
        measured.extend(of_these);
    }
    let report = Report::new("http", "examples/hello over HTTP/1.1", options, measured);
    print!("{}", report.to_markdown());
    report.write(&repository.join("bench/results"))
}
