//! `bench start` measures the time from a program's start to its first answer, with nothing kept from earlier starts
//! (cold) and with a cache of compiled components (warm).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Bench;
use super::contender::{Contender, wasmhost, wasmtime, web};
use super::http::{GUEST, GUEST_ASYNC};
use super::programs::{Build, Programs};
use super::report::{Goal, NotMeasured, Report, Row, Section};
use super::server::Starting;
use super::spread::Spread;

/// The program that is started.
const COMPONENTS: [(&str, &str); 6] = [
    ("hello-0.2", GUEST),
    ("hello-0.3", GUEST_ASYNC),
    ("typescript", "examples/typescript/web.wasm"),
    ("python", "examples/python/web.wasm"),
    ("c", "examples/c/web.wasm"),
    ("go", "examples/go/web.wasm"),
];

/// How often a server that starts is asked whether it answers: what is measured is at most this much too long.
const PAUSE: Duration = Duration::from_micros(500);

/// Components above this size take seconds to compile, and are started cold this often.
const LARGE_BYTES: u64 = 2 << 20;
const LARGE_COLD_STARTS: u32 = 3;

const TIME: &str = "first_answer_ms";

/// One way to start.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    NativeHyper,
    Wasmhost { build: Build, warm: bool },
    Wasmtime { warm: bool },
}

const WAYS: [Way; 7] = [
    Way::NativeHyper,
    Way::Wasmhost { build: Build::This, warm: true },
    Way::Wasmhost { build: Build::Before, warm: true },
    Way::Wasmtime { warm: true },
    Way::Wasmhost { build: Build::This, warm: false },
    Way::Wasmhost { build: Build::Before, warm: false },
    Way::Wasmtime { warm: false },
];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::NativeHyper => "native hyper",
            Way::Wasmhost { build: Build::This, warm: true } => "wasmhost, warm cache",
            Way::Wasmhost { build: Build::This, warm: false } => "wasmhost, cold",
            Way::Wasmhost { build: Build::Before, warm: true } => "wasmhost, before, warm cache",
            Way::Wasmhost { build: Build::Before, warm: false } => "wasmhost, before, cold",
            Way::Wasmtime { warm: true } => "wasmtime serve, warm cache",
            Way::Wasmtime { warm: false } => "wasmtime serve, cold",
        }
    }

    fn is_cold(self) -> bool {
        matches!(self, Way::Wasmhost { warm: false, .. } | Way::Wasmtime { warm: false })
    }

    fn command(
        self,
        programs: &Programs,
        starting: &Starting,
        component: &Path,
        cache: &Path,
    ) -> Result<Command> {
        match self {
            Way::NativeHyper => Contender::NativeHyper.command(programs, starting, component),
            Way::Wasmhost { build, warm } => {
                let mut command = wasmhost(programs, build, starting, "", &web(component, 1, ""))?;
                match warm {
                    true => command.env("WASMHOST_CACHE_DIR", cache),
                    false => command.env("WASMHOST_CACHE", "off"),
                };
                Ok(command)
            }
            Way::Wasmtime { warm } => {
                let mut command = wasmtime(programs, starting)?;
                if !warm {
                    // It keeps what it compiles, if it isn't told not to.
                    command.arg("-Ccache=n");
                } else {
                    let folder = serde_json::Value::from(cache.to_string_lossy());
                    starting.write("cache.toml", &format!("[cache]\ndirectory = {folder}\n"))?;
                    command.args(["-Ccache=y", "-Ccache-config=cache.toml"]);
                }
                command.arg(component);
                Ok(command)
            }
        }
    }
}

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut sections = Vec::new();
    let mut not_measured = Vec::new();
    for (name, component) in COMPONENTS.into_iter().filter(|(name, _)| bench.options.has_case(name)) {
        match bench.component(component) {
            Ok(component) => sections.push(measure(bench, name, &component, &mut not_measured)?),
            Err(err) => bench.leave_out(&mut not_measured, name.to_owned(), &err)?,
        }
    }
    let goals = sections
        .iter()
        .map(|section| {
            let found = Spread::of(section.samples(
                Way::Wasmhost { build: Build::This, warm: true }.name(),
                None,
                TIME,
            ));
            let what = format!("{}: ms to the first answer with a warm cache", section.title);
            Goal::below(50.0, what, found)
        })
        .collect();
    let what = format!(
        "From starting the program to the end of its first answer, asked for each 0.5 ms, with one instance. {} starts, in turn, \
         after one that doesn't count; of large components {LARGE_COLD_STARTS} where they are compiled. Files are in the page \
         cache; cold means that no compiled code is kept.",
        bench.options.starts
    );
    Ok(bench.report("start", what, goals, sections, not_measured))
}

fn measure(
    bench: &Bench,
    name: &str,
    component: &Path,
    not_measured: &mut Vec<NotMeasured>,
) -> Result<Section> {
    let large = component.metadata()?.len() > LARGE_BYTES;
    let mut prepared = Vec::new();
    let builds = bench.programs.builds();
    let is_there = |way: &Way| !matches!(way, Way::Wasmhost { build, .. } if !builds.contains(build));
    for way in WAYS.into_iter().filter(is_there).filter(|way| bench.options.has_server(way.name())) {
        match Prepared::new(bench, way, component) {
            Ok(ready) => prepared.push(ready),
            Err(err) => bench.leave_out(not_measured, format!("{name}, {}", way.name()), &err)?,
        }
    }
    for start in 0..bench.options.starts {
        for ready in &mut prepared {
            if large && ready.way.is_cold() && start >= LARGE_COLD_STARTS {
                continue;
            }
            let took = ready.start(bench, component)?;
            ready.row.add(TIME, took.as_secs_f64() * 1000.0);
        }
    }
    for Prepared { row, .. } in &prepared {
        if let Some(spread) = Spread::of(row.samples(TIME)) {
            eprintln!("{name}: {}: first answer after {:.1} ms", row.server, spread.median);
        }
    }
    Ok(Section { title: name.to_owned(), rows: prepared.into_iter().map(|ready| ready.row).collect() })
}

/// A server that starts again and again, in one folder.
struct Prepared {
    way: Way,
    starting: Option<Starting>,
    cache: tempfile::TempDir,
    row: Row,
}

impl Prepared {
    /// Starts it once, which makes what a host keeps beside its formation, and fills its cache.
    fn new(bench: &Bench, way: Way, component: &Path) -> Result<Prepared> {
        let starting = Some(Starting::new()?);
        let mut ready =
            Prepared { way, starting, cache: tempfile::tempdir()?, row: Row::new(way.name(), None) };
        ready.start(bench, component)?;
        if matches!(way, Way::Wasmhost { warm: true, .. } | Way::Wasmtime { warm: true }) {
            ensure!(holds_a_file(ready.cache.path())?, "it keeps nothing in its cache");
        }
        Ok(ready)
    }

    fn start(&mut self, bench: &Bench, component: &Path) -> Result<Duration> {
        let starting = self.starting.take().context("its last start failed")?;
        let mut command = self.way.command(&bench.programs, &starting, component, self.cache.path())?;
        let server = starting.run(&mut command, "/", PAUSE)?;
        let took = server.started_in;
        self.starting = Some(server.stop());
        Ok(took)
    }
}

fn holds_a_file(folder: &Path) -> Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() || holds_a_file(&entry.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}
