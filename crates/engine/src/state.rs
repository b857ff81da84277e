//! What a store holds: everything that one instance can reach, and nothing that another one can.

use std::sync::Arc;

use wasmhost_config::Grants;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::capability::logs::LineWriter;
use crate::capability::network::{NetworkGrant, ResolvedNames};
use crate::capability::outbound::OutboundHttp;
use crate::limits::MemoryLimit;
use crate::meter::Meter;
use crate::services::{InstanceName, Services, Stream};

/// How many handles (streams, requests, descriptors) a guest may hold; the library's default is a million.
const HANDLES_MAX: usize = 10_000;

/// What every instance of a type is made with.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// The type's name.
    pub process: Arc<str>,
    /// What its instances may touch.
    pub grants: Grants,
    /// A command's arguments, its own name not among them.
    pub args: Vec<String>,
    /// Bytes of memories and tables.
    pub memory_bytes_max: u64,
    /// Set where the instance is no part of a formation, but a program that a person runs.
    pub program: Option<Program>,
}

/// A command that is run as if it were one of the system's own programs: the host's standard streams are its own, and
/// its environment has what was granted and nothing else.
#[derive(Debug, Clone)]
pub struct Program {
    /// What it finds as its first argument.
    pub argv0: String,
}

/// Bytes that one host call may copy out of a guest. The library's default, which programs have, would cost too much
/// where there are many instances.
const HOSTCALL_FUEL: usize = 32 << 20;
const HOSTCALL_FUEL_OF_PROGRAM: usize = 128 << 20;

impl Sandbox {
    pub(crate) fn hostcall_fuel(&self) -> usize {
        if self.program.is_some() { HOSTCALL_FUEL_OF_PROGRAM } else { HOSTCALL_FUEL }
    }
}

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
    wasi: WasiCtx,
    /// In the place of `wasi` and `table` for a core module.
    p1: Option<WasiP1Ctx>,
    http: WasiHttpCtx,
    outbound: OutboundHttp,
    stdout: LineWriter,
    stderr: LineWriter,
}

/// What a command is given besides its grants: a job's payload and names, say.
#[derive(Debug, Default)]
pub(crate) struct Input {
    pub(crate) stdin: Vec<u8>,
    pub(crate) env: Vec<(String, String)>,
}

impl State {
    pub(crate) fn new(
        name: InstanceName,
        sandbox: Arc<Sandbox>,
        services: Services,
        outbound: OutboundHttp,
        meter: Arc<Meter>,
        version: WasiVersion,
    ) -> wasmtime::Result<State> {
        let names = ResolvedNames::default();
        let stdout = LineWriter::new(name.clone(), Stream::Stdout, services.logs.clone(), meter.clone());
        let stderr = LineWriter::new(name.clone(), Stream::Stderr, services.logs.clone(), meter.clone());
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        let mut state = State {
            limit: MemoryLimit::new(sandbox.memory_bytes_max, meter.clone()),
            wasi: WasiCtxBuilder::new().build(),
            p1: (version == WasiVersion::P1).then(|| WasiCtxBuilder::new().build_p1()),
            http: WasiHttpCtx::new(),
            outbound,
            table,
            names,
            stdout,
            stderr,
            meter,
            services,
            sandbox,
            name,
        };
        state.give(Input::default())?;
        Ok(state)
    }

    /// Sets what the guest sees of the world: its grants, and this input.
    pub(crate) fn give(&mut self, input: Input) -> wasmtime::Result<()> {
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
        for dir in &grants.dirs {
            let perms = if dir.writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
            wasi.preopened_dir(&dir.host, &dir.guest, perms).map_err(|err| {
                wasmtime::Error::msg(format!(
                    "can't open the granted directory {}: {err}",
                    dir.host.display()
                ))
            })?;
        }
        NetworkGrant::new(&self.sandbox, &self.services, &self.names).apply(&mut wasi);
        match &mut self.p1 {
            Some(p1) => {
                *p1 = wasi.build_p1();
                p1.ctx().table.set_max_capacity(HANDLES_MAX);
            }
            None => self.wasi = wasi.build(),
        }
        Ok(())
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
