//! The servers that are compared: each way to serve one component, or to do without one.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::collector;
use super::programs::{Build, Programs};
use super::server::{Server, Starting};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contender {
    /// `bench/native`: no WebAssembly at all.
    NativeHyper,
    /// JavaScript on V8.
    Workerd,
    /// `wasmtime serve` as it is: of a 0.2 component a fresh instance for each request.
    WasmtimeDefaults,
    WasmtimeReused,
    /// The same, with a bound on each call's time, as every call has one in a host: it costs a guest's loops and
    /// function calls a check each.
    WasmtimeBounded,
    /// A formation with nothing but the component and the count.
    Wasmhost,
    /// The same with `[health]`: each request is measured.
    WasmhostMeasured,
    /// The same with traces, of which one in a hundred is recorded, and sent to a [`collector`].
    WasmhostTraced,
    /// The same as [`Contender::Wasmhost`], served by [`Build::Before`].
    WasmhostBefore,
    /// A formation with `isolation = "call"` too.
    WasmhostCall,
    WasmhostCallBefore,
    /// `wasmhost run app.wasm`, without any formation.
    WasmhostNoFile,
}

/// Instances that a wasmhost keeps, where nothing else is said.
pub(super) const COUNT: u32 = 16;

const REUSED: [&str; 2] = ["--max-instance-reuse-count", "100000"];

/// How often a server that starts is looked at: it is not the start that is measured.
const PAUSE: Duration = Duration::from_millis(20);

/// The same answers as `bench/guests/web`, for workerd.
const WORKER_JS: &str = r#"const mib = new TextEncoder().encode("x".repeat(1 << 20));
export default {
  async fetch(request) {
    switch (new URL(request.url).pathname) {
      case "/": return new Response("Hello, world!\n");
      case "/body": return new Response(mib);
      case "/sink": {
        let bytes = 0;
        for await (const chunk of request.body) bytes += chunk.length;
        return new Response(`${bytes}\n`);
      }
      default: return new Response("no such path\n", { status: 404 });
    }
  },
};
"#;

impl Contender {
    pub(super) fn name(self) -> &'static str {
        match self {
            Contender::NativeHyper => "native hyper",
            Contender::Workerd => "workerd",
            Contender::WasmtimeDefaults => "wasmtime serve, defaults",
            Contender::WasmtimeReused => "wasmtime serve, reused",
            Contender::WasmtimeBounded => "wasmtime serve, reused, -W timeout=30s",
            Contender::Wasmhost => Build::This.name(),
            Contender::WasmhostMeasured => "wasmhost, [health]",
            Contender::WasmhostTraced => "wasmhost, traces at 1 %",
            Contender::WasmhostBefore => Build::Before.name(),
            Contender::WasmhostCall => "wasmhost, isolation = \"call\"",
            Contender::WasmhostCallBefore => "wasmhost, before, isolation = \"call\"",
            Contender::WasmhostNoFile => "wasmhost, no formation",
        }
    }

    /// These, each followed by what served the same before, where there is such a program.
    pub(super) fn with_those_before(contenders: &[Contender], programs: &Programs) -> Vec<Contender> {
        let has_before = programs.builds().contains(&Build::Before);
        let before = |contender: Contender| match contender {
            Contender::Wasmhost if has_before => Some(Contender::WasmhostBefore),
            Contender::WasmhostCall if has_before => Some(Contender::WasmhostCallBefore),
            _ => None,
        };
        contenders.iter().flat_map(|this| [Some(*this), before(*this)]).flatten().collect()
    }

    /// The wasmhost that it is, if it is one.
    pub(super) fn build(self) -> Option<Build> {
        match self {
            Contender::Wasmhost
            | Contender::WasmhostMeasured
            | Contender::WasmhostTraced
            | Contender::WasmhostCall
            | Contender::WasmhostNoFile => Some(Build::This),
            Contender::WasmhostBefore | Contender::WasmhostCallBefore => Some(Build::Before),
            _ => None,
        }
    }

    /// Starts it with this component, of which the two that need none take no notice.
    pub(super) fn start(self, programs: &Programs, component: &Path) -> Result<Server> {
        let starting = Starting::new()?;
        let mut command = self.command(programs, &starting, component)?;
        starting.run(&mut command, "/", PAUSE)
    }

    /// The command that starts it.
    pub(super) fn command(
        self,
        programs: &Programs,
        starting: &Starting,
        component: &Path,
    ) -> Result<Command> {
        Ok(match self {
            Contender::NativeHyper => {
                let mut command = Command::new(&programs.native_hyper);
                command.arg(starting.address());
                command
            }
            Contender::Workerd => workerd(programs, starting)?,
            Contender::WasmtimeDefaults => {
                let mut command = wasmtime(programs, starting)?;
                command.arg(component);
                command
            }
            Contender::WasmtimeReused => {
                let mut command = wasmtime(programs, starting)?;
                command.args(REUSED).arg(component);
                command
            }
            Contender::WasmtimeBounded => {
                let mut command = wasmtime(programs, starting)?;
                command.args(REUSED).args(["-W", "timeout=30s"]).arg(component);
                command
            }
            Contender::Wasmhost => wasmhost(programs, Build::This, starting, "", &web(component, COUNT, ""))?,
            Contender::WasmhostMeasured => {
                let health = "health = { listen = \"127.0.0.1:0\" }";
                wasmhost(programs, Build::This, starting, health, &web(component, COUNT, ""))?
            }
            Contender::WasmhostTraced => {
                let mut command = wasmhost(programs, Build::This, starting, "", &web(component, COUNT, ""))?;
                command
                    .env(
                        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                        format!("http://{}/v1/traces", collector::address()?),
                    )
                    .env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
                    .env("OTEL_TRACES_SAMPLER_ARG", "0.01");
                command
            }
            Contender::WasmhostBefore => {
                wasmhost(programs, Build::Before, starting, "", &web(component, COUNT, ""))?
            }
            Contender::WasmhostCall => wasmhost(programs, Build::This, starting, "", &called(component))?,
            Contender::WasmhostCallBefore => {
                wasmhost(programs, Build::Before, starting, "", &called(component))?
            }
            Contender::WasmhostNoFile => {
                let mut command = Command::new(programs.wasmhost(Build::This)?);
                command.arg("run").arg(component).args(["--listen", starting.address()]);
                command
            }
        })
    }
}

/// The tables of a formation with one web type.
pub(super) fn web(component: &Path, count: u32, more: &str) -> String {
    // A TOML string's escapes are those of JSON, as far as paths need them.
    let component = serde_json::Value::from(component.to_string_lossy());
    format!("[process.web]\ncomponent = {component}\ncount = {count}\n{more}")
}

fn called(component: &Path) -> String {
    web(component, COUNT, "isolation = \"call\"\n")
}

/// `wasmhost run` of a formation with these keys, and these tables behind them.
pub(super) fn wasmhost(
    programs: &Programs,
    build: Build,
    starting: &Starting,
    keys: &str,
    tables: &str,
) -> Result<Command> {
    let listen = starting.address();
    let formation = format!("name = \"bench\"\nhttp = {{ listen = \"{listen}\" }}\n{keys}\n{tables}");
    starting.write("formation.toml", &formation)?;
    let mut command = Command::new(programs.wasmhost(build)?);
    command.args(["run", "formation.toml"]);
    Ok(command)
}

/// `wasmtime serve`, but for its component.
pub(super) fn wasmtime(programs: &Programs, starting: &Starting) -> Result<Command> {
    let mut command = Command::new(programs.wasmtime()?);
    command.args(["serve", "-Scli=y", "--addr", starting.address()]);
    Ok(command)
}

fn workerd(programs: &Programs, starting: &Starting) -> Result<Command> {
    let workerd = programs.workerd()?;
    starting.write("worker.js", WORKER_JS)?;
    let address = starting.address();
    let config = format!(
        r#"using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .worker)],
  sockets = [(name = "http", address = "{address}", http = (), service = "main")],
);
const worker :Workerd.Worker = (
  modules = [(name = "worker.js", esModule = embed "worker.js")],
  compatibilityDate = "2025-09-01",
);
"#
    );
    starting.write("config.capnp", &config).context("workerd's configuration")?;
    let mut command = Command::new(workerd);
    command.args(["serve", "config.capnp"]);
    Ok(command)
}
