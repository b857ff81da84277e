//! `bench isolation` measures how well a small guest answers beside guests of another type: endless loops, and other
//! [neighbours], hostile ones and honest ones.

mod neighbours;
mod storm;

use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Bench;
use super::client::begin;
use super::contender::{COUNT, Contender, wasmhost, web};
use super::http::{GUEST, GUEST_ASYNC};
use super::load::{Request, Sample};
use super::report::{Goal, NotMeasured, Report, Row, Section};
use super::server::{Server, Starting};
use super::spread::Spread;
use neighbours::{MEMORY_MIB, NEIGHBOURS, Neighbour};

const CONTENDERS: [Contender; 3] =
    [Contender::Wasmhost, Contender::WasmtimeDefaults, Contender::WasmtimeReused];

const CONNECTIONS: u32 = 16;

/// Endless loops beside wasmhost's guest, and beside wasmtime's.
const LOOPS: u32 = 8;
const LOOPS_WASMTIME: u32 = 2;

/// How long the loops may take to be under way.
const BEGIN_MAX: Duration = Duration::from_secs(30);

/// How long other neighbours are left alone until their effect is measured.
const SETTLE: Duration = Duration::from_millis(500);

/// The section of neighbours that aren't loops.
const NEIGHBOURS_NAME: &str = "neighbours";

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
    if bench.options.has_case(NEIGHBOURS_NAME) {
        let section = beside_neighbours(bench, &mut not_measured)?;
        goals.extend(goals_beside_neighbours(&section));
        sections.push(section);
    }
    if bench.options.has_case(storm::NAME) {
        match storm::measure(bench) {
            Ok(section) => {
                goals.extend(storm::goals(&section));
                sections.push(section);
            }
            Err(err) => bench.leave_out(&mut not_measured, storm::NAME.to_owned(), &err)?,
        }
    }
    let what = format!(
        "`hello` at c={CONNECTIONS} alone, and beside {LOOPS} requests in endless loops on another route of another type, of the \
         same guest; `wasmtime serve` beside {LOOPS_WASMTIME} such loops. `{NEIGHBOURS_NAME}`: `hello` of WASI 0.2 beside a type \
         of {NEIGHBOURS} instances with {MEMORY_MIB} MiB each, honest (`compute` over and over, bodies of 1 MiB) and hostile \
         (`bench/guests/README.md`), whose clients are threads of a lower priority; `wasmtime serve` with the same limit of \
         memory. `{}`: jobs of one type, alone and beside another that enqueues a thousand at once, without end. {} Each \
         round has a new server.",
        storm::NAME,
        bench.rounds()
    );
    Ok(bench.report("isolation", what, goals, sections, not_measured))
}

/// The guest beside each set of neighbours.
fn beside_neighbours(bench: &Bench, not_measured: &mut Vec<NotMeasured>) -> Result<Section> {
    let component = bench.component(GUEST)?;
    let contenders = Contender::with_those_before(&CONTENDERS, &bench.programs);
    let contenders = contenders.into_iter().filter(|contender| bench.options.has_server(contender.name()));
    let all = [Neighbour::Busy, Neighbour::Uploads].into_iter().chain(Neighbour::HOSTILE);
    let mut cases: Vec<(Contender, Neighbour, Row)> = contenders
        .flat_map(|contender| all.clone().map(move |neighbour| (contender, neighbour)))
        .filter(|(contender, neighbour)| neighbour.is_for(*contender))
        .map(|(contender, neighbour)| {
            (contender, neighbour, Row::new(beside(contender, neighbour), Some(CONNECTIONS)))
        })
        .collect();
    for round in 0..bench.options.rounds {
        let mut failed = Vec::new();
        for (at, (contender, neighbour, row)) in cases.iter_mut().enumerate() {
            match measure_beside(bench, *contender, *neighbour, &component) {
                Ok(sample) => add(row, NEIGHBOURS_NAME, &sample),
                Err(err) => {
                    let what = format!("{}, from round {} on", row.server, round + 1);
                    bench.leave_out(not_measured, what, &err)?;
                    failed.push(at);
                }
            }
        }
        for at in failed.into_iter().rev() {
            cases.remove(at);
        }
    }
    let rows = cases.into_iter().map(|(_, _, row)| row).collect();
    Ok(Section { title: NEIGHBOURS_NAME.to_owned(), rows })
}

fn measure_beside(
    bench: &Bench,
    contender: Contender,
    neighbour: Neighbour,
    component: &Path,
) -> Result<Sample> {
    let server = start(bench, contender, component, &neighbour.table(bench)?)?;
    bench.warm_up(&server, Request::Get("/"), CONNECTIONS)?;
    let _running = neighbour.begin(&server)?;
    std::thread::sleep(SETTLE);
    bench.measure(&server, Request::Get("/"), CONNECTIONS)
}

fn goals_beside_neighbours(section: &Section) -> Vec<Goal> {
    let of = |neighbour, figure| {
        section.samples(&beside(Contender::Wasmhost, neighbour), Some(CONNECTIONS), figure)
    };
    let each = Neighbour::HOSTILE.into_iter().flat_map(|hostile| {
        let honest = hostile.honest();
        let ratio = |figure| Spread::of_ratios(of(hostile, figure), of(honest, figure));
        let (hostile, honest) = (hostile.name(), honest.name());
        [
            Goal::at_least(0.9, format!("req/s beside {hostile} / beside {honest}"), ratio(RATE)),
            Goal::below(2.0, format!("p99 beside {hostile} / beside {honest}"), ratio("p99_ms")),
        ]
    });
    each.collect()
}

fn beside(contender: Contender, neighbour: Neighbour) -> String {
    format!("{}, beside {}", contender.name(), neighbour.name())
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
    let server = start(bench, contender, component, &loops_table(component))?;
    bench.warm_up(&server, Request::Get("/"), CONNECTIONS)?;
    alone.add_sample(&bench.measure(&server, Request::Get("/"), CONNECTIONS)?);
    let _looping = begin_loops(&server, contender, loops_beside(contender))?;
    add(&mut beside, case, &bench.measure(&server, Request::Get("/"), CONNECTIONS)?);
    Ok([alone, beside])
}

fn add(row: &mut Row, case: &str, sample: &Sample) {
    eprintln!("{case} {}: {:.0} req/s, p99 {:.2} ms", row.server, sample.requests_per_second, sample.p99_ms);
    match sample.requests_per_second {
        // Without an answer there is no time that one took.
        0.0 => row.add(RATE, 0.0),
        _ => row.add_sample(sample),
    }
}

fn loops_table(component: &Path) -> String {
    let component = serde_json::Value::from(component.to_string_lossy());
    format!(
        "\n[process.loops]\ncomponent = {component}\ncount = {LOOPS}\nroute = \"/loop\"\ntimeout = \"1h\"\n"
    )
}

/// A server of the guest. A wasmhost has another type with this table; a `wasmtime serve` the memory that it would have.
fn start(bench: &Bench, contender: Contender, component: &Path, table: &str) -> Result<Server> {
    let starting = Starting::new()?;
    let Some(build) = contender.build() else {
        let mut command = contender.command(&bench.programs, &starting, component)?;
        command.args(["-W", &format!("max-memory-size={}", u64::from(MEMORY_MIB) << 20)]);
        return starting.run(&mut command, "/", Duration::from_millis(20));
    };
    let tables = format!("{}{table}", web(component, COUNT, ""));
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
