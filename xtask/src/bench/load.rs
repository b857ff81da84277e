//! The load: `wrk` with one thread, which leaves the server the other core of a small machine. A script of ours prints its
//! numbers, since those that it prints for people are rounded.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::process::Process;
use super::programs::on_path;

/// The requests that are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// `GET` of this path.
    Get(&'static str),
    /// `POST` to this path, with a body of 1 MiB.
    PostMib(&'static str),
}

/// The program that sends requests.
pub(super) struct Load {
    wrk: PathBuf,
    get: NamedTempFile,
    post_mib: NamedTempFile,
}

/// One measurement.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Sample {
    /// Requests that were answered by 2xx or 3xx.
    pub(super) answered: u64,
    pub(super) requests_per_second: f64,
    /// Milliseconds below which half, and 99 of 100, of the answers came.
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    /// Requests that got another status, or no answer: a server that fails fast would look fast.
    pub(super) errors: u64,
}

/// Prints one line of JSON behind what wrk itself prints.
const REPORT: &str = r#"
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"max_us":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
"#;

const POST_MIB: &str = r#"
wrk.method = "POST"
wrk.body = string.rep("x", 1048576)
"#;

/// That line.
#[derive(Deserialize)]
struct Printed {
    requests: u64,
    duration_us: u64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
    connect: u64,
    read: u64,
    write: u64,
    status: u64,
    timeout: u64,
}

impl Load {
    pub(super) fn find() -> Result<Load> {
        let Some(wrk) = on_path("wrk") else {
            bail!("wrk is not installed: `apt-get install wrk`, or your system's package of it");
        };
        Ok(Load { wrk, get: script(REPORT)?, post_mib: script(&format!("{POST_MIB}{REPORT}"))? })
    }

    /// Sends requests for this long, as fast as they are answered on each of these connections.
    pub(super) fn run(
        &self,
        base: &str,
        request: Request,
        connections: u32,
        time: Duration,
    ) -> Result<Sample> {
        let (path, script) = match request {
            Request::Get(path) => (path, &self.get),
            Request::PostMib(path) => (path, &self.post_mib),
        };
        let output = NamedTempFile::new()?;
        let mut command = Command::new(&self.wrk);
        command
            .args(["--latency", "-t1", &format!("-c{connections}"), &format!("-d{}s", time.as_secs().max(1))])
            .arg("-s")
            .arg(script.path())
            .arg(format!("{}{path}", base.trim_end_matches('/')))
            .stdout(Stdio::from(output.reopen()?))
            .stderr(Stdio::null());
        let status = Process::start(&mut command)?.wait()?;
        let text = std::fs::read_to_string(output.path())?;
        ensure!(status.success(), "wrk failed: {text}");
        parse(&text).with_context(|| format!("wrk printed something else than expected:\n{text}"))
    }
}

fn script(text: &str) -> Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().suffix(".lua").tempfile()?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

fn parse(text: &str) -> Result<Sample> {
    let line = text.lines().find(|line| line.starts_with('{')).context("no line of JSON")?;
    let printed: Printed = serde_json::from_str(line)?;
    let ms = |us: u64| us as f64 / 1000.0;
    // It counts an answer with an error's status among the requests too.
    let answered = printed.requests.saturating_sub(printed.status);
    Ok(Sample {
        answered,
        requests_per_second: answered as f64 / (printed.duration_us.max(1) as f64 / 1e6),
        p50_ms: ms(printed.p50_us),
        p99_ms: ms(printed.p99_us),
        max_ms: ms(printed.max_us),
        errors: printed.connect + printed.read + printed.write + printed.status + printed.timeout,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = r#"Running 5s test @ http://127.0.0.1:1/
  290000 requests in 5.00s, 40.00MB read
Requests/sec:  58000.12
Transfer/sec:      8.00MB
{"requests":290000,"duration_us":5000000,"p50_us":256,"p99_us":1500,"max_us":9000,"connect":0,"read":0,"write":0,"status":0,"timeout":0}
"#;

    #[test]
    fn what_wrk_reports_is_read() {
        let sample = parse(OUTPUT).unwrap();
        assert_eq!(sample.requests_per_second, 58_000.0);
        assert_eq!((sample.p50_ms, sample.p99_ms, sample.max_ms, sample.errors), (0.256, 1.5, 9.0, 0));
    }

    #[test]
    fn errors_are_counted_and_are_no_answers() {
        let failing = OUTPUT.replace("\"status\":0,\"timeout\":0", "\"status\":90000,\"timeout\":2");
        let sample = parse(&failing).unwrap();
        assert_eq!((sample.answered, sample.requests_per_second, sample.errors), (200_000, 40_000.0, 90_002));
    }

    #[test]
    fn what_is_no_report_is_an_error() {
        assert!(parse("unable to connect to 127.0.0.1:1 Connection refused\n").is_err());
    }
}
