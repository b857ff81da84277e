//! The load: `wrk` with one thread, which leaves the server the other core of a small machine.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

/// The program that sends requests.
pub(crate) struct Load {
    wrk: PathBuf,
}

/// One measurement.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Sample {
    pub(crate) requests_per_second: f64,
    /// Milliseconds below which half, and 99 of 100, of the answers came.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Load {
    pub(crate) fn find() -> Result<Load> {
        match super::server::on_path("wrk") {
            Some(wrk) => Ok(Load { wrk }),
            None => bail!("wrk is not installed: `apt-get install wrk`, or your system's package of it"),
        }
    }

    /// Sends requests for this long. An answer other than 2xx or 3xx, or none, is an error: a server that fails
    /// fast would look fast.
    pub(crate) fn run(&self, url: &str, connections: u32, time: Duration) -> Result<Sample> {
        let output = Command::new(&self.wrk)
            .args(["--latency", "-t1", &format!("-c{connections}"), &format!("-d{}s", time.as_secs())])
            .arg(url)
            .output()
            .context("wrk did not start")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "wrk failed: {text}{}", String::from_utf8_lossy(&output.stderr));
        parse(&text).with_context(|| format!("wrk printed something else than expected:\n{text}"))
    }
}

fn parse(text: &str) -> Result<Sample> {
    for line in text.lines() {
        ensure!(!line.contains("Non-2xx") && !line.contains("Socket errors"), "{}", line.trim());
    }
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.map(str::trim).with_context(|| format!("no line {name}"))
    };
    Ok(Sample {
        requests_per_second: value("Requests/sec:")?.parse()?,
        p50_ms: milliseconds(value("50%")?)?,
        p99_ms: milliseconds(value("99%")?)?,
    })
}

/// `1.23ms`, `456.00us`, `1.00s`
fn milliseconds(text: &str) -> Result<f64> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = text.trim_end_matches(unit).parse()?;
    Ok(number
        * match unit {
            "us" => 0.001,
            "ms" => 1.0,
            "s" => 1000.0,
            _ => bail!("{text} is no time"),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "Running 5s test @ http://127.0.0.1:1/
  1 threads and 16 connections
  Latency Distribution
     50%  256.00us
     75%  300.00us
     90%  400.00us
     99%    1.50ms
  290000 requests in 5.00s, 40.00MB read
Requests/sec:  58000.12
Transfer/sec:      8.00MB
";

    #[test]
    fn what_wrk_prints_is_read() {
        let sample = parse(OUTPUT).unwrap();
        assert_eq!((sample.requests_per_second, sample.p50_ms, sample.p99_ms), (58000.12, 0.256, 1.5));
    }

    #[test]
    fn answers_that_are_errors_are_no_measurement() {
        let failing = OUTPUT.replace("Requests/sec", "  Non-2xx or 3xx responses: 7\nRequests/sec");
        assert!(parse(&failing).is_err());
    }
}
