//! A component's way from its file to its end: it is checked, loaded, started and called.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{BoxFuture, ready};
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use wasmhost_config::{Formation, Grants};
use wasmhost_engine::services::{
    Enqueue, EnqueueRefusal, InstanceName, LogSink, NewJob, Receipt, Refusal, RefusalSink, Services, Stream,
};
use wasmhost_engine::{
    Cache, CallEnd, CallLimits, Component, Engine, EngineOptions, Footprint, Handler, Instance, Job,
    LoadError, LogRate, Meter, RequestScheme, Sandbox, TABLE_ELEMENTS_MAX, Tick, inspect,
};
use wasmhost_host::{GrantedBy, Plan, PlannedType, Surroundings};

use super::guest;
use super::made::made;

const MEMORY_BYTES_MAX: u64 = 8 << 20;

/// As many instances as there may be. All places must be free after each input.
const SLOTS: u32 = 2;

/// How long an instance may start, and how long a call may last and compute.
const START_MAX: Duration = Duration::from_millis(300);
const LIMITS: CallLimits =
    CallLimits { timeout: Some(Duration::from_millis(200)), cpu: Some(Duration::from_millis(50)) };

/// How long a call's end may take beyond that: a client that has gone is waited for.
const END_MAX: Duration = Duration::from_secs(10);

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A file that is said to be a component: see [`made`].
pub fn component(data: &[u8]) {
    let Some(file) = made(data) else { return };
    let here = &*HERE;
    let Some(planned) = here.check(&file) else { return };
    let Some(component) = here.load(&planned) else { return };
    here.runtime.block_on(async {
        if let Some(instance) = here.start(&component).await {
            here.call(instance, planned.handler).await;
        }
        here.is_well(planned.is_async).await;
    });
}

static HERE: LazyLock<Here> = LazyLock::new(Here::new);

struct Here {
    engine: Arc<Engine>,
    runtime: Runtime,
    /// Good ones: of WASI 0.2, and of 0.3, which has a pool of its own.
    good: [Component; 2],
    /// It is removed by `xtask`.
    folder: PathBuf,
}

impl Here {
    fn new() -> Here {
        let footprint = Footprint {
            core_instances: 20,
            memories: 4,
            tables: 8,
            memory_bytes: MEMORY_BYTES_MAX,
            table_elements: TABLE_ELEMENTS_MAX,
            table_elements_max: TABLE_ELEMENTS_MAX,
            stacks: 8,
        };
        let options = EngineOptions {
            slots: SLOTS,
            memory_bytes_max: MEMORY_BYTES_MAX,
            footprint,
            guest_descriptors_max: 100,
            alone: false,
        };
        Engine::prepare_thread();
        let engine = Engine::new(options, Cache::off()).expect("there is room for a pool");
        let folder = tempfile::tempdir().expect("there is room for a folder").keep();
        let good = ["tick-test", "tick-async"].map(|name| {
            let good = fs::read(guest(name)).expect("the guest is there");
            let planned = check(&folder, &good).expect("a good component passes");
            load(&engine, &planned).expect("a good component loads")
        });
        let runtime = Builder::new_current_thread().enable_all().build().expect("there is a poller");
        Here { engine, runtime, good, folder }
    }

    fn check(&self, file: &[u8]) -> Option<PlannedType> {
        let planned = check(&self.folder, file)?;
        // A host would make a larger pool for it.
        self.engine.fits(planned.process.memory_bytes_max, planned.footprint).then_some(planned)
    }

    fn load(&self, planned: &PlannedType) -> Option<Component> {
        match load(&self.engine, planned) {
            Ok(component) => Some(component),
            Err(err @ (LoadError::Compile(_) | LoadError::Link(_) | LoadError::Unsupported(_))) => {
                is_one_line(&err.to_string());
                None
            }
            Err(other) => panic!("the host can't load it: {other}"),
        }
    }

    async fn start(&self, component: &Component) -> Option<Instance> {
        let meter = Arc::new(Meter::default());
        let interrupt = async {
            sleep(START_MAX).await;
            meter.interrupt();
            std::future::pending::<()>().await;
        };
        let started = tokio::select! {
            started = component.start(1, meter.clone()) => started,
            () = interrupt => unreachable!("it never ends"),
        };
        started.map_err(|end| is_of_guest(&end)).ok()
    }

    async fn call(&self, instance: Instance, handler: Handler) {
        let meter = instance.meter().clone();
        let called = async {
            match handler {
                Handler::Http02 | Handler::Http03 => request(instance).await,
                Handler::Job | Handler::AsyncJob => {
                    let finished = instance.call_job(job(), LIMITS, None, std::future::pending()).await;
                    is_of_guest(&finished.report.end);
                }
                Handler::Tick | Handler::AsyncTick => {
                    let tick =
                        Tick { schedule: "clock".into(), nominal_ms: 1_800_000_000_000, manual: false };
                    is_of_guest(&instance.call_tick(tick, LIMITS, None).await.report.end);
                }
                Handler::Command02 | Handler::Command03 | Handler::CoreCommand => {
                    is_of_guest(&instance.call_command(LIMITS).await.report.end);
                }
            }
        };
        assert!(timeout(END_MAX, called).await.is_ok(), "the call doesn't end");
        let over = async {
            while meter.descriptors() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(timeout(END_MAX, over).await.is_ok(), "it holds {} descriptors", meter.descriptors());
    }

    /// All places are free, and who takes them is well.
    async fn is_well(&self, is_async: bool) {
        let good = &self.good[usize::from(is_async)];
        let mut instances = Vec::new();
        for index in 1..=SLOTS {
            // A call may need a moment to its end.
            let started = async {
                loop {
                    match good.start(index, Arc::default()).await {
                        Ok(instance) => return instance,
                        Err(_) => sleep(Duration::from_millis(1)).await,
                    }
                }
            };
            let started = timeout(END_MAX, started).await;
            instances.push(started.unwrap_or_else(|_| panic!("place {index} of {SLOTS} is taken")));
        }
    }
}

/// What `wasmhost check` does.
fn check(folder: &Path, file: &[u8]) -> Option<PlannedType> {
    fs::write(folder.join("guest.wasm"), file).expect("the folder can be written to");
    let called_by = match inspect(file).ok().and_then(|seen| seen.handlers.first().copied()) {
        Some(Handler::Job | Handler::AsyncJob) => "queue = \"mail\"",
        Some(Handler::Tick | Handler::AsyncTick) => "schedule = \"@daily\"",
        _ => "",
    };
    let surroundings = Surroundings { cache: None, granted_by: GrantedBy::Formation };
    match Plan::new(formation(folder.join("formation.toml"), called_by), &surroundings) {
        Ok(mut plan) => plan.types.pop(),
        Err(err) => {
            assert!(!err.problems.is_empty(), "it is refused for nothing");
            err.problems.iter().for_each(|problem| is_one_line(&problem.to_string()));
            None
        }
    }
}

fn formation(file: PathBuf, called_by: &str) -> Formation {
    let text = format!("[process.guest]\ncomponent = \"guest.wasm\"\nmemory = \"8MiB\"\n{called_by}\n");
    let origin = wasmhost_config::Origin {
        file: &file,
        folder: file.parent().expect("it is in a folder"),
        environment: &|_| None,
        dotenv: None,
    };
    wasmhost_config::parse(&text, &origin).expect("the formation is right")
}

fn load(engine: &Arc<Engine>, planned: &PlannedType) -> Result<Component, LoadError> {
    let sandbox = Sandbox {
        process: "guest".into(),
        grants: Grants::default(),
        directories: planned.directories.clone(),
        args: vec!["one".to_owned(), "two".to_owned()],
        memory_bytes_max: planned.process.memory_bytes_max,
        table_elements_max: TABLE_ELEMENTS_MAX,
        log_rate: LogRate::new(1 << 20),
        missing_imports_trap: planned.process.missing_imports_trap,
        program: None,
    };
    let nothing = Arc::new(Nothing);
    let services = Services { logs: nothing.clone(), enqueue: nothing.clone(), refusals: nothing };
    let PlannedType { code, handler, is_async, compile, .. } = planned;
    Component::load(engine, code, *handler, *is_async, *compile, sandbox, services)
}

async fn request(instance: Instance) {
    let (over, is_over) = oneshot::channel();
    let body = Full::new(Bytes::from_static(b"some bytes"));
    let request = Request::post("http://x/path?query").header("host", "x").body(body);
    let request = request.expect("it is a request");
    let answer = instance.call_http(request, RequestScheme::Http, LIMITS, None, move |finished| {
        // Nobody waits where the answer was late.
        let _ = over.send(finished.report.end);
    });
    match answer.await {
        Ok(answer) => {
            let mut body = http_body_util::Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
            while let Some(Ok(_)) = body.frame().await {}
        }
        Err(end) => is_of_guest(&end),
    }
    is_of_guest(&is_over.await.expect("each call ends"));
}

fn job() -> Job {
    Job {
        id: "1".into(),
        queue: "mail".into(),
        attempt: 1,
        attempts: 3,
        content_type: "text/plain".into(),
        payload: b"payload".to_vec(),
        metadata: vec![("name".into(), "value".into())],
    }
}

/// A call ends by what the guest did, never since the host failed it.
fn is_of_guest<T>(end: &CallEnd<T>) {
    assert!(!matches!(end, CallEnd::Host(_)), "the host failed it: {}", end.summary());
}

fn is_one_line(text: &str) {
    assert!(!text.chars().any(char::is_control), "a terminal would obey {text:?}");
}

/// Services for a guest that is granted nothing.
struct Nothing;

impl LogSink for Nothing {
    fn has_room(&self, _: &InstanceName) -> bool {
        true
    }

    fn line(&self, _: &InstanceName, _: Stream, _: &str) {}

    fn past_rate(&self, _: &InstanceName, _: u64) {}

    fn room(&self, _: &InstanceName) -> BoxFuture<'static, ()> {
        Box::pin(ready(()))
    }
}

#[async_trait]
impl Enqueue for Nothing {
    async fn enqueue(&self, _: &str, _: &str, _: Vec<NewJob>) -> Result<Vec<Receipt>, EnqueueRefusal> {
        Err(EnqueueRefusal::Unavailable("there is no store".to_owned()))
    }
}

impl RefusalSink for Nothing {
    fn refused(&self, _: &Arc<str>, _: Refusal) {}
}
