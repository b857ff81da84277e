//! `bench isolation` measures how well a small guest answers beside guests that never end, on another route and of another
//! type.

use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Bench;
use super::client::begin;
use super::contender::{COUNT, Contender, wasmhost, web};
use super::http::{GUEST, GUEST_ASYNC};
use super::load::Request;
use super::report::{Goal, Report, Row, Section};
use super::server::{Server, Starting};
use super::spread::Spread;

const CONTENDERS: [Contender; 3] =
    [Contender::Wasmhost, Contender::WasmtimeDefaults, Contender::WasmtimeReused];

const CONNECTIONS: u32 = 16;

/// Endless loops beside wasmhost's guest, and beside wasmtime's.
const LOOPS: u32 = 8;
const LOOPS_WASMTIME: u32 = 2;

/// How long the loops may take to be under way.
const BEGIN_MAX: Duration = Duration::from_secs(30);

const RATE: &str = "requests_per_second";

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut sections = Vec::new();
    let mut not_measured = Vec::new();
    let cases = [("hello-0.2", GUEST), ("hello-0.3", GUEST_ASYNC)];
    for (name, component) in cases.into_iter().filter(|(name, _)| bench.options.has_case(name)) {
        let component = bench.component(component)?;
        let contenders = Contender::with_those_before(&CONTENDERS, &bench.programs);
        let contenders =
            contenders.into_iter().filter(|contender| bench.options.has_server(contender.name()));
        let mut all: Vec<_> = contenders.map(|contender| (contender, rows_of(contender))).collect();
        for _ in 0..bench.options.rounds {
            for (contender, rows) in std::mem::take(&mut all) {
                match measure(bench, name, contender, &component, rows) {
                    Ok(rows) => all.push((contender, rows)),
                    Err(err) => {
                        bench.leave_out(&mut not_measured, format!("{name}, {}", contender.name()), &err)?;
                    }
                }
            }
        }
        let rows = all.into_iter().flat_map(|(_, rows)| rows).collect();
        sections.push(Section { title: name.to_owned(), rows });
    }
    let mut goals = Vec::new();
    for section in &sections {
        let (alone, beside) = names(Contender::Wasmhost, LOOPS);
        let of = |server: &str, name| section.samples(server, Some(CONNECTIONS), name);
        let ratio = Spread::of_ratios(of(&beside, RATE), of(&alone, RATE));
        let what = format!("{}: req/s beside {LOOPS} loops / alone", section.title);
        goals.push(Goal::at_least(0.4, what, ratio));
        let p99 = Spread::of(of(&beside, "p99_ms"));
        let what = format!("{}: p99 ms beside {LOOPS} loops", section.title);
        goals.push(Goal::below(5.0, what, p99).only_aimed_at());
    }
    let what = format!(
        "`hello` at c={CONNECTIONS} alone, and beside {LOOPS} requests in endless loops on another route of another type, of the \
         same guest; `wasmtime serve` beside {LOOPS_WASMTIME} such loops. {} Each round has a new server.",
        bench.rounds()
    );
    Ok(bench.report("isolation", what, goals, sections, not_measured))
}

fn names(contender: Contender, loops: u32) -> (String, String) {
    (format!("{}, alone", contender.name()), format!("{}, beside {loops} loops", contender.name()))
}

fn loops_beside(contender: Contender) -> u32 {
    if contender.build().is_some() { LOOPS } else { LOOPS_WASMTIME }
}

/// Alone, and beside loops.
fn rows_of(contender: Contender) -> [Row; 2] {
    let (alone, beside) = names(contender, loops_beside(contender));
    [alone, beside].map(|name| Row::new(name, Some(CONNECTIONS)))
}

/// One round.
fn measure(
    bench: &Bench,
    case: &str,
    contender: Contender,
    component: &Path,
    rows: [Row; 2],
) -> Result<[Row; 2]> {
    let [mut alone, mut beside] = rows;
    // A new one each round: nothing but its end would end the loops.
    let server = start(bench, contender, component)?;
    bench.warm_up(&server, Request::Get("/"), CONNECTIONS)?;
    alone.add_sample(&bench.measure(&server, Request::Get("/"), CONNECTIONS)?);
    let _looping = begin_loops(&server, contender, loops_beside(contender))?;
    let sample = bench.measure(&server, Request::Get("/"), CONNECTIONS)?;
    eprintln!(
        "{case} {}: {:.0} req/s, p99 {:.2} ms",
        beside.server, sample.requests_per_second, sample.p99_ms
    );
    match sample.requests_per_second {
        // Without an answer there is no time that one took.
        0.0 => beside.add(RATE, 0.0),
        _ => beside.add_sample(&sample),
    }
    Ok([alone, beside])
}

fn start(bench: &Bench, contender: Contender, component: &Path) -> Result<Server> {
    let Some(build) = contender.build() else { return contender.start(&bench.programs, component) };
    let starting = Starting::new()?;
    let component_value = serde_json::Value::from(component.to_string_lossy());
    let tables = format!(
        "{}\n[process.loops]\ncomponent = {component_value}\ncount = {LOOPS}\nroute = \"/loop\"\ntimeout = \"1h\"\n",
        web(component, COUNT, "")
    );
    let mut command = wasmhost(&bench.programs, build, &starting, "", &tables)?;
    starting.run(&mut command, "/", Duration::from_millis(20))
}

/// Returns when they run.
fn begin_loops(server: &Server, contender: Contender, loops: u32) -> Result<Vec<TcpStream>> {
    let looping: Result<Vec<TcpStream>> = (0..loops).map(|_| begin(&server.address, "/loop")).collect();
    let until = Instant::now() + BEGIN_MAX;
    loop {
        let running = match contender.build() {
            Some(_) => busy(server, "loops")?,
            // It doesn't say: a moment is enough for a request to be read, and after it a core each is busy.
            None => {
                std::thread::sleep(Duration::from_millis(300));
                loops
            }
        };
        if running >= loops {
            return looping;
        }
        ensure!(Instant::now() < until, "only {running} of {loops} loops run");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Instances of a type that have a call.
fn busy(server: &Server, process: &str) -> Result<u32> {
    let formation = server.admin().get("/v1/formation")?;
    let types = formation["types"].as_array().into_iter().flatten();
    let instances =
        types.filter(|kind| kind["process"] == process).filter_map(|kind| kind["instances"].as_array());
    let busy = instances.flatten().filter(|instance| instance["state"] == "busy").count();
    Ok(u32::try_from(busy)?)
}
