//! What a store holds: everything that one instance can reach, and nothing that another one can.

use std::sync::Arc;

use wasmhost_config::Grants;
use wasmtime::component::ResourceTable;
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
    ) -> wasmtime::Result<State> {
        let names = ResolvedNames::default();
        let stdout = LineWriter::new(name.clone(), Stream::Stdout, services.logs.clone());
        let stderr = LineWriter::new(name.clone(), Stream::Stderr, services.logs.clone());
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        let mut state = State {
            limit: MemoryLimit::new(sandbox.memory_bytes_max, meter.clone()),
            wasi: WasiCtxBuilder::new().build(),
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
        wasi.stdout(self.stdout.clone()).stderr(self.stderr.clone());
        if !input.stdin.is_empty() {
            wasi.stdin(MemoryInputPipe::new(input.stdin));
        }
        wasi.arg(&*self.sandbox.process).args(&self.sandbox.args);
        for var in &grants.env {
            wasi.env(&var.name, &var.value);
        }
        wasi.env("WASMHOST_TYPE", &*self.sandbox.process);
        wasi.env("WASMHOST_INSTANCE", self.name.to_string());
        wasi.envs(&input.env);
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
        self.wasi = wasi.build();
        Ok(())
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
