//! A host in this process, behind unix sockets. It runs on the thread that asks it, so that an input takes the same way
//! each time. (Its store, and guests that compute for long, have threads of their own.)

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::{sleep, timeout};
use wasmhost_engine::{Cache, Engine};
use wasmhost_host::{
    GrantedBy, HandedOver, Host, HostOptions, LogFormat, Output, Plan, ServiceManager, Surroundings,
    socket_path,
};

use super::guest;

/// How long an exchange may take: far longer than any bound that the formation sets.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Turns of the runtime after which a host that has said nothing has nothing to say.
const QUIET_TURNS: u32 = 16;

/// The host is looked at after so many inputs.
const LOOK_EVERY: u64 = 64;

/// How long it may take to come to rest, and how much more than at its start it may hold then.
const REST_MAX: Duration = Duration::from_secs(30);
const TASKS_MORE_MAX: usize = 16;
const DESCRIPTORS_MORE_MAX: usize = 16;

/// A type for each trigger. All bounds are short.
const FORMATION: &str = r#"
max_instances = 32

[http]
listen = "unix:http.sock"
trusted_proxies = ["unix"]
header_timeout = "1s"
idle_timeout = "1s"
body_timeout = "1s"

[store]
url = "memory:"

[queues.mail]
max_depth = 1000

[process.web]
component = "web-test.wasm"
count = 2
timeout = "500ms"
cpu = "50ms"
memory = "32MiB"

[process.three]
component = "wasi03-service.wasm"
route = "three/"
timeout = "500ms"
cpu = "50ms"
memory = "32MiB"

[process.worker]
component = "job-test.wasm"
queue = "mail"
attempts = 2
timeout = "500ms"
cpu = "50ms"
memory = "32MiB"

[process.clock]
component = "tick-test.wasm"
schedule = "0 0 1 1 *"
timeout = "500ms"
memory = "32MiB"
"#;

/// The host of this process.
pub(super) static SERVED: LazyLock<Served> = LazyLock::new(Served::start);

/// When the client says that it sends no more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// When the host has answered, as far as it can.
    WhenQuiet,
    /// Never: the host closes.
    Never,
}

pub(super) struct Served {
    pub(super) http: PathBuf,
    pub(super) admin: PathBuf,
    inputs: AtomicU64,
    /// At rest.
    tasks: usize,
    descriptors: usize,
    runtime: Runtime,
}

impl Served {
    fn start() -> Served {
        // Both last as long as the process. `xtask` removes the folder.
        let folder = tempfile::tempdir().expect("there is room for a folder").keep();
        for name in ["web-test", "wasi03-service", "job-test", "tick-test"] {
            fs::copy(guest(name), folder.join(name).with_extension("wasm")).expect("a guest is copied");
        }
        let file = folder.join("formation.toml");
        fs::write(&file, FORMATION).expect("the formation is written");
        let formation = wasmhost_config::load(&file).expect("the formation is right");
        let (http, admin) = (folder.join("http.sock"), socket_path(&formation.state_dir));
        let surroundings = Surroundings { cache: None, granted_by: GrantedBy::Formation };
        let plan = Plan::new(formation, &surroundings).expect("the components are there");
        let options = HostOptions {
            output: Output::start().expect("there are threads"),
            log_format: LogFormat::detect(),
            cache: Cache::off(),
            cache_directory: None,
            progress: Box::new(|_| ()),
            serving: Box::new(|_| ()),
            answering: Box::new(|_| ()),
            administering: Box::new(|_| ()),
            granted_by: GrantedBy::Formation,
            handed_over: HandedOver::nothing(),
            manager: ServiceManager::nobody(),
            telemetry: Default::default(),
        };
        Engine::prepare_thread();
        let runtime = Builder::new_current_thread().enable_all().build().expect("there is a poller");
        let host = runtime.block_on(Host::start(plan, options, std::future::pending()));
        let host: &Host = Box::leak(Box::new(host.expect("the host starts")));
        runtime.block_on(host.settled());
        let mut served = Served {
            http,
            admin,
            inputs: AtomicU64::new(0),
            tasks: usize::MAX - TASKS_MORE_MAX,
            descriptors: usize::MAX - DESCRIPTORS_MORE_MAX,
            runtime,
        };
        served.look();
        served.runtime.block_on(async { sleep(Duration::from_millis(100)).await });
        (served.tasks, served.descriptors) = (served.runtime.block_on(async { tasks() }), descriptors());
        served
    }

    /// Sends packets on a new connection, and reads what comes back. The host may close it at any time.
    pub(super) fn exchange(&self, socket: &Path, packets: &[&[u8]], end: End) -> Vec<u8> {
        self.runtime.block_on(exchange(socket, packets, end))
    }

    /// The host is as it was before: it holds no more than at its start, its instances are there, and others are
    /// answered. Most of it is looked at after some inputs together.
    pub(super) fn is_well(&self) {
        self.runtime.block_on(self.rest());
        if (self.inputs.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(LOOK_EVERY) {
            self.look();
        }
    }

    /// Waits until what was begun for inputs is over.
    async fn rest(&self) {
        let most = self.tasks + TASKS_MORE_MAX;
        let at_rest = async {
            while tasks() > most {
                sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(
            timeout(REST_MAX, at_rest).await.is_ok(),
            "{} tasks, and {} at the start",
            tasks(),
            self.tasks
        );
    }

    fn look(&self) {
        self.runtime.block_on(async {
            // An admin request may have changed counts, stopped a queue or filled it.
            self.order("POST /v1/scale", r#"{"reset_all": true, "wait_s": 10}"#).await;
            self.order("POST /v1/queues/mail/resume", "").await;
            self.order("POST /v1/jobs/cancel", "{}").await;
            self.order("POST /v1/jobs/discard", "{}").await;
            self.settle().await;
            for (host, path, expected) in [("x", "/ok", "ok\n"), ("three", "/hello", "hello\n")] {
                let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
                let answer = timeout(REST_MAX, self.answer(&request)).await;
                let answer =
                    answer.unwrap_or_else(|_| panic!("{host}{path} isn't answered within {REST_MAX:?}"));
                assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(expected), "{answer:?}");
            }
        });
        let most = self.descriptors + DESCRIPTORS_MORE_MAX;
        assert!(
            descriptors() <= most,
            "{} descriptors, and {} at the start",
            descriptors(),
            self.descriptors
        );
    }

    /// The answer to a good request. A type whose calls have just been ended may be late once, and so may any on a machine
    /// that does much else.
    async fn answer(&self, request: &str) -> String {
        loop {
            let answer = exchange(&self.http, &[request.as_bytes()], End::Never).await;
            if ![&b"HTTP/1.1 503 "[..], b"HTTP/1.1 504 "].iter().any(|late| answer.starts_with(late)) {
                return String::from_utf8_lossy(&answer).into_owned();
            }
        }
    }

    /// Every type has the instances that it should have.
    async fn settle(&self) {
        let settled = async {
            loop {
                let view = self.order("GET /v1/formation", "").await;
                let types = view["types"].as_array().expect("it has types");
                if types.iter().all(|process| process["actual"] == process["desired"]) {
                    return;
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(timeout(REST_MAX, settled).await.is_ok(), "instances are missing");
    }

    /// A good admin request, which is answered by 200.
    async fn order(&self, request: &str, body: &str) -> Value {
        let request = admin_request(request, body.as_bytes());
        let answer = exchange(&self.admin, &[&request], End::Never).await;
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
        serde_json::from_slice(body_of(&answer)).expect("the answer is JSON")
    }
}

/// A request of the admin API, after which the connection closes.
pub(super) fn admin_request(request: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// An answer's part behind its head.
pub(super) fn body_of(answer: &[u8]) -> &[u8] {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    end.map_or(&[], |end| &answer[end + 4..])
}

async fn exchange(socket: &Path, packets: &[&[u8]], end: End) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).await.expect("the host listens");
    let mut answer = Vec::new();
    let whole = async {
        for packet in packets {
            // The host may have closed.
            if stream.write_all(packet).await.is_err() {
                break;
            }
            if packets.len() > 1 || end == End::WhenQuiet {
                read_until_quiet(&stream, &mut answer).await;
            }
        }
        if end == End::WhenQuiet {
            let _ = stream.shutdown().await;
        }
        let left = ANSWER_BYTES_MAX.saturating_sub(answer.len()) as u64;
        // An error is an end, too.
        let _ = (&mut stream).take(left).read_to_end(&mut answer).await;
    };
    assert!(timeout(ANSWER_MAX, whole).await.is_ok(), "the host doesn't close within {ANSWER_MAX:?}");
    answer
}

/// Reads as long as the host, which runs on this thread, has something to say about what it has heard.
async fn read_until_quiet(stream: &UnixStream, answer: &mut Vec<u8>) {
    let mut silent = 0;
    let mut piece = [0; 16 << 10];
    while silent < QUIET_TURNS && answer.len() < ANSWER_BYTES_MAX {
        tokio::task::yield_now().await;
        match stream.try_read(&mut piece) {
            Ok(0) => return,
            Ok(count) => {
                answer.extend_from_slice(&piece[..count]);
                silent = 0;
            }
            Err(err) if err.kind() == ErrorKind::WouldBlock => silent += 1,
            Err(_) => return,
        }
    }
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Those of this process.
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}
