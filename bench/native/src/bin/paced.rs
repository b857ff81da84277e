//! A load generator that keeps its times. `paced URL RATE SECONDS` sends RATE requests a second, at even times, whether or
//! not earlier ones were answered, and prints as JSON how they were answered.
//!
//! (wrk sends a connection's next request when its last one was answered, so a slow server gets fewer.) A request is sent
//! on a free connection, or on a new one. Its time counts from when it was due, so a request that waited here isn't counted
//! as fast.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use wasmhost_bench_native::http::exchange;

/// Connections that are open at once; a request that finds none free is not sent.
const CONNECTIONS_MAX: usize = 20_000;

/// How long the last answers are waited for.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(30);

/// How the requests end.
#[derive(Default)]
struct Load {
    address: String,
    request: String,
    free: RefCell<Vec<TcpStream>>,
    open: Cell<usize>,
    /// Times to the answer, by its status.
    answers: RefCell<BTreeMap<u16, Vec<Duration>>>,
    failed: Cell<u64>,
    unsent: Cell<u64>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, rate, seconds] = arguments.as_slice() else {
        return Err(Error::new(ErrorKind::InvalidInput, "usage: paced URL RATE SECONDS"));
    };
    let wrong = |what: &str| Error::new(ErrorKind::InvalidInput, format!("{what} is no positive number"));
    let rate: f64 = rate.parse().ok().filter(|rate| *rate > 0.0).ok_or_else(|| wrong("RATE"))?;
    let seconds: f64 =
        seconds.parse().ok().filter(|seconds| *seconds > 0.0).ok_or_else(|| wrong("SECONDS"))?;
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "URL is not http://"))?;
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    let load = Rc::new(Load {
        address: address.to_owned(),
        request: format!("GET /{path} HTTP/1.1\r\nHost: {address}\r\n\r\n"),
        ..Load::default()
    });
    let limit = getrlimit(Resource::Nofile);
    // Where it can't be raised, requests fail, and are counted.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    // One thread, as wrk's: the server has the rest of the machine.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, load.clone().send(rate, seconds));
    println!("{}", load.to_json());
    Ok(())
}

impl Load {
    async fn send(self: Rc<Self>, rate: f64, seconds: f64) {
        let start = Instant::now();
        let all = (rate * seconds) as u64;
        let mut underway = JoinSet::new();
        let mut next = 0;
        while next < all {
            // The clock ticks each millisecond: those that have become due since the last tick go together.
            let due = ((start.elapsed().as_secs_f64() * rate) as u64 + 1).min(all);
            while next < due {
                let due_at = start + Duration::from_secs_f64(next as f64 / rate);
                underway.spawn_local(self.clone().request(due_at));
                next += 1;
            }
            while underway.try_join_next().is_some() {}
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let last = async { while underway.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_ANSWERS_MAX, last).await.is_err() {
            self.failed.update(|failed| failed + underway.len() as u64);
        }
    }

    async fn request(self: Rc<Self>, due: Instant) {
        let free = self.free.borrow_mut().pop();
        if free.is_none() && self.open.get() >= CONNECTIONS_MAX {
            return self.unsent.update(|unsent| unsent + 1);
        }
        match self.exchange(free).await {
            Ok(status) => self.answers.borrow_mut().entry(status).or_default().push(due.elapsed()),
            Err(_) => self.failed.update(|failed| failed + 1),
        }
    }

    async fn exchange(&self, free: Option<TcpStream>) -> Result<u16> {
        let mut stream = match free {
            Some(stream) => stream,
            None => {
                self.open.update(|open| open + 1);
                let connected = TcpStream::connect(&self.address).await;
                let connected = connected.inspect_err(|_| self.open.update(|open| open - 1))?;
                connected.set_nodelay(true)?;
                connected
            }
        };
        match exchange(&mut stream, self.request.as_bytes()).await {
            Ok((status, true)) => {
                self.free.borrow_mut().push(stream);
                Ok(status)
            }
            ended => {
                self.open.update(|open| open - 1);
                ended.map(|(status, _)| status)
            }
        }
    }

    fn to_json(&self) -> String {
        let answers = self.answers.borrow();
        let each: Vec<String> = answers
            .iter()
            .map(|(status, times)| {
                let mut times = times.clone();
                times.sort_unstable();
                let at = |of_100: usize| {
                    times[(times.len() * of_100 / 100).min(times.len() - 1)].as_secs_f64() * 1e3
                };
                format!(
                    r#"{{"status":{status},"count":{},"p50_ms":{:.3},"p99_ms":{:.3},"max_ms":{:.3}}}"#,
                    times.len(),
                    at(50),
                    at(99),
                    at(100)
                )
            })
            .collect();
        let (failed, unsent) = (self.failed.get(), self.unsent.get());
        format!(r#"{{"answers":[{}],"failed":{failed},"unsent":{unsent}}}"#, each.join(","))
    }
}
