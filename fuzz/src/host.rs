//! A whole host in this process, behind unix sockets, whose requests a fuzzer makes up; and the loading of components.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::runtime::Runtime;
use wasmhost_config::CompileLimits;
use wasmhost_engine::services::{
    Enqueue, EnqueueRefusal, InstanceName, LogSink, NewJob, Receipt, Refusal, RefusalSink, Services, Stream,
};
use wasmhost_engine::{
    Cache, Code, Component, Directories, Engine, EngineOptions, Footprint, Meter, Sandbox,
};
use wasmhost_host::{
    GrantedBy, HandedOver, Host, HostOptions, LogFormat, Output, Plan, ServiceManager, Surroundings,
    socket_path,
};

/// How long one exchange may take: longer than any bound of the host.
const ANSWER_MAX: Duration = Duration::from_secs(50);

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// A good request is sent after so many others.
const GOOD_EVERY: u64 = 64;

static HOST: LazyLock<Served> = LazyLock::new(Served::start);

/// Bytes of a client on a connection of HTTP/1. After a zero byte the rest comes in a packet of its own.
pub fn http1(data: &[u8]) {
    let packets: Vec<&[u8]> = data.split(|byte| *byte == 0).collect();
    let answer = exchange(&HOST.http, &packets);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{:?}", answer.escape_ascii().to_string());
    HOST.is_well();
}

/// Frames of a client on a connection of HTTP/2, behind its preface.
pub fn http2(data: &[u8]) {
    let answer = exchange(&HOST.http, &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", data]);
    // Settings come first.
    assert!(answer.is_empty() || answer.get(3) == Some(&4), "{:?}", answer.escape_ascii().to_string());
    HOST.is_well();
}

/// Requests of the admin API, which a first byte chooses from: the rest is a query or a body.
pub fn admin(data: &[u8]) {
    const REQUESTS: [&str; 17] = [
        "GET /v1/formation?",
        "GET /v1/releases?",
        "GET /v1/releases/",
        "GET /v1/queues?",
        "GET /v1/jobs?",
        "GET /v1/jobs/",
        "GET /v1/schedules?",
        "GET /v1/schedules/clock/ticks?",
        "POST /v1/scale",
        "POST /v1/restart",
        "POST /v1/queues/mail/jobs",
        "POST /v1/queues/mail/pause",
        "POST /v1/jobs/retry",
        "POST /v1/jobs/cancel",
        "POST /v1/jobs/discard",
        "POST /v1/rollback",
        "POST /v1/promote",
    ];
    let Some((which, rest)) = data.split_first() else { return };
    let request = REQUESTS[usize::from(*which) % REQUESTS.len()];
    let request = match request.starts_with("GET") {
        true => {
            let query: String = rest.iter().map(|byte| escaped(*byte)).collect();
            format!("{request}{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").into_bytes()
        }
        false => {
            let length = rest.len();
            let head = format!(
                "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
            );
            [head.as_bytes(), rest].concat()
        }
    };
    let answer = exchange(&HOST.admin, &[&request]);
    assert!(answer.starts_with(b"HTTP/1.1 "), "{:?}", answer.escape_ascii().to_string());
    let status = &answer[9..12];
    assert!(status < b"500", "{:?}", answer.escape_ascii().to_string());
    HOST.is_well();
}

/// A byte of a query as it is, or escaped where it would end the request's line.
fn escaped(byte: u8) -> String {
    match byte {
        b'!'..=b'~' if byte != b'#' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    }
}

/// Sends packets and reads what comes back. The host may end the connection at any time.
fn exchange(socket: &Path, packets: &[&[u8]]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).expect("the host listens");
    stream.set_read_timeout(Some(ANSWER_MAX)).expect("a socket has timeouts");
    let _ = packets.iter().try_for_each(|packet| stream.write_all(packet));
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer) {
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "no answer within {ANSWER_MAX:?}");
    }
    answer
}

struct Served {
    http: PathBuf,
    admin: PathBuf,
    asked: AtomicU64,
    _folder: tempfile::TempDir,
    _runtime: Runtime,
    _host: Host,
}

impl Served {
    fn start() -> Served {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let file = folder.path().join("formation.toml");
        let component = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/hello/hello.wasm");
        let text = format!(
            "max_instances = 8\n[http]\nlisten = \"unix:http.sock\"\n[process.web]\ncomponent = {:?}\ncount = 2\n",
            component.canonicalize().expect("`cargo xtask guests` has built it")
        );
        std::fs::write(&file, text).expect("the folder can be written to");
        let formation = wasmhost_config::load(&file).expect("the formation is right");
        let (http, admin) = (folder.path().join("http.sock"), socket_path(&formation.state_dir));
        let surroundings = Surroundings { cache: None, granted_by: GrantedBy::Formation };
        let plan = Plan::new(formation, &surroundings).expect("the component is there");
        let options = HostOptions {
            output: Output::start().expect("there is a thread"),
            log_format: LogFormat::detect(),
            cache: Cache::off(),
            cache_directory: None,
            progress: Box::new(|_| ()),
            serving: Box::new(|_| ()),
            granted_by: GrantedBy::Formation,
            handed_over: HandedOver::from_env(),
            manager: ServiceManager::nobody(),
        };
        let runtime = Runtime::new().expect("there are threads");
        let host = runtime.block_on(Host::start(plan, options)).expect("the host starts");
        runtime.block_on(host.settled());
        Served { http, admin, asked: AtomicU64::new(0), _folder: folder, _runtime: runtime, _host: host }
    }

    /// Somebody else's request is answered as before.
    fn is_well(&self) {
        if !self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(GOOD_EVERY) {
            return;
        }
        let answer = exchange(&self.http, &[b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"]);
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", answer.escape_ascii().to_string());
    }
}

/// A file that is said to be a component: it is looked at, and where it is one that could be run it is compiled and
/// started.
pub fn component(data: &[u8]) {
    let Ok((code, seen)) = Code::new(data.to_vec(), false) else { return };
    let Some(handler) = seen.handlers.first() else { return };
    // More than this machine gives one input.
    if seen.footprint.bytes_at_start() > MEMORY_BYTES_MAX || seen.is_async {
        return;
    }
    let Loading { engine, runtime } = &*LOADING;
    let sandbox = Sandbox {
        process: "fuzz".into(),
        grants: Default::default(),
        directories: Directories::default(),
        args: Vec::new(),
        memory_bytes_max: MEMORY_BYTES_MAX,
        missing_imports_trap: true,
        program: None,
    };
    let limits = CompileLimits::default();
    let loaded = Component::load(engine, &code, *handler, false, limits, sandbox, nothing());
    let Ok(component) = loaded else { return };
    let meter = Arc::new(Meter::default());
    drop(runtime.block_on(component.start(1, meter)));
}

const MEMORY_BYTES_MAX: u64 = 16 << 20;

struct Loading {
    engine: Arc<Engine>,
    runtime: Runtime,
}

static LOADING: LazyLock<Loading> = LazyLock::new(|| {
    let footprint = Footprint {
        core_instances: 20,
        memories: 4,
        tables: 8,
        memory_bytes: MEMORY_BYTES_MAX,
        table_elements: 10_000,
        table_elements_max: 10_000,
    };
    let options = EngineOptions {
        slots: 4,
        memory_bytes_max: MEMORY_BYTES_MAX,
        footprint,
        guest_descriptors_max: 100,
        alone: false,
    };
    Loading {
        engine: Engine::new(options, Cache::off()).expect("there is room for a pool"),
        runtime: Runtime::new().expect("there are threads"),
    }
});

/// Services for a guest that is on nobody's side.
fn nothing() -> Services {
    Services { logs: Arc::new(Nothing), enqueue: Arc::new(Nothing), refusals: Arc::new(Nothing) }
}

struct Nothing;

impl LogSink for Nothing {
    fn has_room(&self, _: &InstanceName) -> bool {
        true
    }

    fn line(&self, _: &InstanceName, _: Stream, _: &str) {}

    fn room(&self, _: &InstanceName) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

#[async_trait]
impl Enqueue for Nothing {
    async fn enqueue(&self, _: &str, _: Vec<NewJob>) -> Result<Vec<Receipt>, EnqueueRefusal> {
        Err(EnqueueRefusal::Unavailable("there is no store".to_owned()))
    }
}

impl RefusalSink for Nothing {
    fn refused(&self, _: &Arc<str>, _: Refusal) {}
}
