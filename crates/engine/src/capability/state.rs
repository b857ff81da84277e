//! The contents of a store: everything that one instance can reach, and nothing that another one can.

use std::sync::Arc;

use wasmtime::StoreContextMut;
use wasmtime::component::{GuestTaskId, ResourceTable};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::files::bounded::Bounded;
use super::logs::LineWriter;
use super::network::{NetworkGrant, ResolvedNames};
use super::outbound::OutboundHttp;
use super::traced::CallTraces;
use crate::sandbox::Sandbox;
use crate::sandbox::descriptors::Counter;
use crate::sandbox::holdings::{Holding, Holdings};
use crate::sandbox::limits::MemoryLimit;
use crate::sandbox::meter::Meter;
use crate::services::{InstanceName, Services, Stream, Trace};

/// How many handles (streams, requests, descriptors) a guest may hold; the library's default is a million.
const HANDLES_MAX: usize = 10_000;

/// The same for a core module, whose handles are files and streams alone.
const HANDLES_MAX_OF_P1: usize = 512;

/// How many handles a guest of such a type may hold.
pub(crate) fn handles_max(sandbox: &Sandbox, version: WasiVersion) -> usize {
    match version {
        WasiVersion::P1 if sandbox.program.is_none() => HANDLES_MAX_OF_P1,
        WasiVersion::P1 | WasiVersion::Component => HANDLES_MAX,
    }
}

/// Random bytes that a guest may ask for at once.
const RANDOM_BYTES_MAX: u64 = 16 << 20;

/// Which interface of WASI a guest speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WasiVersion {
    /// 0.1: a core module.
    P1,
    /// A later one.
    Component,
}

pub(crate) struct State {
    pub(crate) name: InstanceName,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) services: Services,
    pub(crate) meter: Arc<Meter>,
    pub(crate) limit: MemoryLimit,
    pub(crate) table: ResourceTable,
    pub(crate) names: ResolvedNames,
    pub(crate) holdings: Holdings,
    /// The granted directories that have a bound, by their place among the grants.
    pub(crate) bounded: Vec<Option<Bounded>>,
    /// The traces of calls that may be beside others.
    pub(crate) traces: CallTraces,
    wasi: WasiCtx,
    /// In the place of `wasi` and `table` for a core module.
    p1: Option<WasiP1Ctx>,
    http: WasiHttpCtx,
    outbound: OutboundHttp,
    stdout: LineWriter,
    stderr: LineWriter,
}

/// The input that a command is given besides its grants: a job's payload and names, say.
#[derive(Debug, Default)]
pub(crate) struct Input {
    pub(crate) stdin: Vec<u8>,
    pub(crate) env: Vec<(String, String)>,
}

/// The first descriptor of a core module that is a granted directory.
const FIRST_DIRECTORY: usize = 3;

impl State {
    pub(crate) fn new(
        name: InstanceName,
        sandbox: Arc<Sandbox>,
        services: Services,
        outbound: OutboundHttp,
        meter: Arc<Meter>,
        descriptors: Counter,
        version: WasiVersion,
    ) -> State {
        let names = ResolvedNames::default();
        let lines = |stream| {
            let (name, rate) = (name.clone(), sandbox.log_rate.clone());
            LineWriter::new(name, stream, services.logs.clone(), rate, meter.clone())
        };
        let (stdout, stderr) = (lines(Stream::Stdout), lines(Stream::Stderr));
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        let mut state = State {
            limit: MemoryLimit::new(sandbox.memory_bytes_max, sandbox.table_elements_max, meter.clone()),
            wasi: WasiCtxBuilder::new().build(),
            p1: (version == WasiVersion::P1).then(|| WasiCtxBuilder::new().build_p1()),
            http: WasiHttpCtx::new(),
            outbound,
            table,
            names,
            holdings: Holdings::new(descriptors),
            bounded: Bounded::of_grants(&sandbox, &services),
            traces: CallTraces::default(),
            stdout,
            stderr,
            meter,
            services,
            sandbox,
            name,
        };
        state.give(Input::default());
        state
    }

    /// Sets what the guest sees of the world: its grants, and this input.
    pub(crate) fn give(&mut self, input: Input) {
        let grants = &self.sandbox.grants;
        let mut wasi = WasiCtxBuilder::new();
        for var in &grants.env {
            wasi.env(&var.name, &var.value);
        }
        match &self.sandbox.program {
            Some(program) => {
                wasi.inherit_stdio().arg(&program.argv0);
            }
            None => {
                wasi.stdout(self.stdout.clone()).stderr(self.stderr.clone());
                if !input.stdin.is_empty() {
                    wasi.stdin(MemoryInputPipe::new(input.stdin));
                }
                wasi.arg(&*self.sandbox.process);
                wasi.env("WASMHOST_TYPE", &*self.sandbox.process);
                wasi.env("WASMHOST_INSTANCE", self.name.to_string());
                wasi.envs(&input.env);
            }
        }
        wasi.args(&self.sandbox.args);
        wasi.max_random_size(RANDOM_BYTES_MAX);
        NetworkGrant::new(&self.sandbox, &self.services, &self.names).apply(&mut wasi);
        match &mut self.p1 {
            Some(p1) => {
                *p1 = wasi.build_p1();
                let WasiCtxView { ctx, table } = p1.ctx();
                *ctx.filesystem() = self.sandbox.directories.granted();
                for (grant, opened) in self.sandbox.directories.descriptors().into_iter().enumerate() {
                    // Descriptors of granted directories come after the three standard streams.
                    let Ok(descriptor) = u32::try_from(FIRST_DIRECTORY + grant) else { break };
                    let holding = Holding { grant: Some(grant), opened: Some(opened), ..Holding::default() };
                    self.holdings.keep(descriptor, holding);
                }
                table.set_max_capacity(handles_max(&self.sandbox, WasiVersion::P1));
            }
            None => {
                self.wasi = wasi.build();
                *self.wasi.filesystem() = self.sandbox.directories.granted();
            }
        }
    }

    /// The calls that may have been beside each other are over, and nothing is left in the guest.
    pub(crate) fn end_run(&mut self) {
        self.traces.clear();
        self.outbound.trace = None;
        self.end_lines();
    }

    /// The guest is about to send something. Where its calls may be beside each other, finds out which of them it is.
    pub(super) fn find_trace(store: &mut StoreContextMut<'_, State>) {
        if store.data().traces.is_empty() {
            return;
        }
        let tasks: Vec<GuestTaskId> = store.async_call_stack().map(Iterator::collect).unwrap_or_default();
        let state = store.data_mut();
        state.outbound.trace = state.traces.of(tasks.into_iter());
    }

    /// The guest's next requests and jobs are part of this trace.
    pub(crate) fn go_on_in(&mut self, trace: Trace) {
        self.outbound.trace = trace;
    }

    /// The trace that the guest's present call is part of, where it is alone in the instance.
    pub(super) fn trace(&self) -> Trace {
        self.outbound.trace.clone()
    }

    /// A call is over, and with it the lines that it wrote.
    pub(crate) fn end_lines(&self) {
        self.stdout.end_line();
        self.stderr.end_line();
    }

    /// Whether the library was asked to cut a body in pieces since this was last called: see [`OutboundHttp`].
    pub(crate) fn take_asked_for_chunks(&mut self) -> bool {
        std::mem::take(&mut self.outbound.asked_for_chunks)
    }

    /// The world of a core module.
    pub(crate) fn p1(&mut self) -> &mut WasiP1Ctx {
        self.p1.get_or_insert_with(|| WasiCtxBuilder::new().build_p1())
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outbound }
    }
}
