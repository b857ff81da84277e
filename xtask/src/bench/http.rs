//! `bench http` measures requests per second, their latency and what each costs the server, beside other servers.
//!
//! The load takes a part of the machine, so requests per second hide how much of it a server uses. The server's processor
//! time for each request is what a machine pays, whoever sends the load.
//!
//! Each server of a case is started once and measured in turn, round after round, so that a machine whose speed
//! drifts is as unfair to one as to the other.

use anyhow::{Error, Result};

use super::contender::Contender::{self, *};
use super::load::Request;
use super::report::{Goal, NotMeasured, Report, Row, Section};
use super::server::Server;
use super::spread::Spread;
use super::{Bench, processor};

/// Connections that send requests as fast as they are answered.
const CONNECTIONS: [u32; 2] = [16, 64];

pub(super) const GUEST: &str = "bench/guests/out/web.wasm";
pub(super) const GUEST_ASYNC: &str = "bench/guests/out/web-async.wasm";

struct Case {
    name: &'static str,
    component: &'static str,
    request: Request,
    contenders: &'static [Contender],
}

/// The limit, and everything that serves a small component.
const ALL: &[Contender] = &[
    NativeHyper,
    Workerd,
    WasmtimeDefaults,
    WasmtimeReused,
    Wasmhost,
    WasmhostMeasured,
    WasmhostTraced,
    WasmhostCall,
    WasmhostNoFile,
];
/// workerd takes no component: once is enough.
const ALL_BUT_WORKERD: &[Contender] = &[
    NativeHyper,
    WasmtimeDefaults,
    WasmtimeReused,
    Wasmhost,
    WasmhostMeasured,
    WasmhostTraced,
    WasmhostCall,
    WasmhostNoFile,
];
const BODIES: &[Contender] = &[NativeHyper, Workerd, WasmtimeDefaults, WasmtimeReused, Wasmhost];
const BODIES_BUT_WORKERD: &[Contender] = &[NativeHyper, WasmtimeDefaults, WasmtimeReused, Wasmhost];
const COMPONENTS: &[Contender] = &[WasmtimeDefaults, WasmtimeReused, WasmtimeBounded, Wasmhost];

const CASES: &[Case] = &[
    case("hello-0.2", GUEST, Request::Get("/"), ALL),
    case("hello-0.3", GUEST_ASYNC, Request::Get("/"), ALL_BUT_WORKERD),
    case("body-0.2", GUEST, Request::Get("/body"), BODIES),
    case("body-0.3", GUEST_ASYNC, Request::Get("/body"), BODIES_BUT_WORKERD),
    case("sink-0.2", GUEST, Request::PostMib("/sink"), BODIES),
    case("sink-0.3", GUEST_ASYNC, Request::PostMib("/sink"), BODIES_BUT_WORKERD),
    case("compute-0.2", GUEST, Request::Get("/compute"), COMPONENTS),
    case("compute-0.3", GUEST_ASYNC, Request::Get("/compute"), COMPONENTS),
    case("typescript", "examples/typescript/web.wasm", Request::Get("/"), COMPONENTS),
    case("python", "examples/python/web.wasm", Request::Get("/"), COMPONENTS),
    case("c", "examples/c/web.wasm", Request::Get("/"), COMPONENTS),
    case("go", "examples/go/web.wasm", Request::Get("/"), COMPONENTS),
];

const fn case(
    name: &'static str,
    component: &'static str,
    request: Request,
    contenders: &'static [Contender],
) -> Case {
    Case { name, component, request, contenders }
}

const RATE: &str = "requests_per_second";
/// The processor time, user and system, of the server's process and those that it has started.
const COST: &str = "cpu_us_per_request";

/// A server of the case that is measured.
struct Running {
    contender: Contender,
    server: Server,
    row: Row,
}

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut sections = Vec::new();
    let mut not_measured = Vec::new();
    for case in CASES.iter().filter(|case| bench.options.has_case(case.name)) {
        sections.push(measure(bench, case, &mut not_measured)?);
    }
    let goals = goals(&sections);
    let what = format!(
        "The guests of `bench/guests` and of `examples` over HTTP/1.1: `hello` is 14 bytes, `body` 1 MiB to the client, `sink` \
         1 MiB from it, `compute` about 1 ms of computing; 0.2 and 0.3 are the WASI of the guest. The load is `wrk -t1` on the \
         same machine: {}",
        bench.rounds()
    );
    Ok(bench.report("http", what, goals, sections, not_measured))
}

fn measure(bench: &Bench, case: &Case, not_measured: &mut Vec<NotMeasured>) -> Result<Section> {
    let mut section = Section::new(case.name);
    let mut leave_out = |who: &str, err: &Error| {
        let comma = if who.is_empty() { "" } else { ", " };
        bench.leave_out(not_measured, format!("{}{comma}{who}", case.name), err)
    };
    let component = match bench.component(case.component) {
        Ok(component) => component,
        Err(err) => {
            leave_out("", &err)?;
            return Ok(section);
        }
    };
    let mut running = Vec::new();
    let contenders = Contender::with_those_before(case.contenders, &bench.programs);
    for contender in contenders.iter().filter(|contender| bench.options.has_server(contender.name())) {
        match contender.start(&bench.programs, &component) {
            Ok(server) => running.push((*contender, server)),
            Err(err) => leave_out(contender.name(), &err)?,
        }
    }
    for connections in CONNECTIONS {
        let mut these: Vec<Running> = Vec::new();
        for (contender, server) in running.drain(..) {
            match bench.warm_up(&server, case.request, connections) {
                Ok(()) => {
                    let row = Row::new(contender.name(), Some(connections));
                    these.push(Running { contender, server, row });
                }
                Err(err) => leave_out(contender.name(), &err)?,
            }
        }
        for round in 0..bench.options.rounds {
            // Nobody always comes first.
            if round > 0 && !these.is_empty() {
                these.rotate_left(1);
            }
            for Running { contender, server, row } in &mut these {
                let before = processor::used(&[server.process.id()])?;
                let sample = bench.measure(server, case.request, connections)?;
                let used = processor::used(&[server.process.id()])?.saturating_sub(before);
                // A round without an answer has its errors to say so.
                let cost_us = used.as_secs_f64() * 1e6 / sample.answered.max(1) as f64;
                eprintln!(
                    "{} c={connections} {}: {:.0} req/s, {cost_us:.1} us of CPU each, p99 {:.2} ms{}",
                    case.name,
                    contender.name(),
                    sample.requests_per_second,
                    sample.p99_ms,
                    if sample.errors > 0 { format!(", {} ERRORS", sample.errors) } else { String::new() }
                );
                row.add(RATE, sample.requests_per_second);
                row.add(COST, cost_us);
                row.add_times(&sample);
            }
        }
        these.sort_by_key(|running| contenders.iter().position(|other| *other == running.contender));
        for Running { contender, server, mut row } in these {
            row.add("resident_mib", server.memory()?.resident_kib / 1024.0);
            section.rows.push(row);
            running.push((contender, server));
        }
    }
    Ok(section)
}

/// Ratios of what one server has by what another has, in the same rounds.
type Ratio<'a> = dyn Fn(&str, &'static str, Contender, Contender, u32) -> Option<Spread> + 'a;

/// The goals of a host, as ratios of one run.
fn goals(sections: &[Section]) -> Vec<Goal> {
    let ratio = |case: &str, name, this: Contender, that: Contender, connections| {
        let section = sections.iter().find(|section| section.title == case)?;
        let of = |contender: Contender| section.samples(contender.name(), Some(connections), name);
        Spread::of_ratios(of(this), of(that))
    };
    let has = |case: &str| sections.iter().any(|section| section.title == case);
    let mut goals = Vec::new();
    goals.extend(RATES.into_iter().filter(|asked| has(asked.0)).flat_map(|asked| of_rates(asked, &ratio)));
    goals.extend(COSTS.into_iter().filter(|asked| has(asked.0)).flat_map(|asked| of_costs(asked, &ratio)));
    // The aim in processor time is what 14 us, and 24 us of 0.3, are beside 7 us.
    for (case, cost) in [("hello-0.2", 2.0), ("hello-0.3", 3.5)].into_iter().filter(|(case, _)| has(case)) {
        for connections in CONNECTIONS {
            let found = ratio(case, COST, Wasmhost, NativeHyper, connections);
            let what = format!("{case}, c={connections}: CPU/req of wasmhost / {}", NativeHyper.name());
            goals.push(Goal::below(cost, what, found).only_aimed_at());
            let found = ratio(case, RATE, Wasmhost, NativeHyper, connections);
            let what = format!("{case}, c={connections}: req/s of wasmhost / {}", NativeHyper.name());
            goals.push(Goal::at_least(0.5, what, found).only_aimed_at());
            let found = ratio(case, "p99_ms", Wasmhost, WasmtimeReused, connections);
            let what = format!("{case}, c={connections}: p99 of wasmhost / {}", WasmtimeReused.name());
            goals.push(Goal::below(1.0, what, found));
        }
    }
    for case in ["typescript", "python", "c", "go"].into_iter().filter(|case| has(case)) {
        goals.extend(CONNECTIONS.into_iter().flat_map(|connections| of_language(case, connections, &ratio)));
    }
    goals
}

/// The case, who, beside whom, and at 16 and 64 connections the goal; then the aim.
type Asked = (&'static str, Contender, Contender, [f64; 2], f64);

/// Requests per second: so many times as many.
const RATES: [Asked; 8] = [
    // To be measured costs a request hardly anything.
    ("hello-0.2", WasmhostMeasured, Wasmhost, [0.99, 0.99], 1.0),
    ("hello-0.3", WasmhostMeasured, Wasmhost, [0.99, 0.99], 1.0),
    // Nor do traces, of which few are recorded.
    ("hello-0.2", WasmhostTraced, Wasmhost, [0.97, 0.97], 1.0),
    ("hello-0.3", WasmhostTraced, Wasmhost, [0.97, 0.97], 1.0),
    ("hello-0.2", Wasmhost, WasmtimeReused, [1.3, 1.1], 1.5),
    ("hello-0.2", Wasmhost, WasmtimeDefaults, [8.0, 8.0], 10.0),
    ("hello-0.2", WasmhostCall, WasmtimeDefaults, [2.0, 2.0], 2.5),
    ("hello-0.3", Wasmhost, WasmtimeReused, [1.2, 1.2], 1.5),
];

/// Processor time of each request: this part of it, at most. The goals are a little above what a quiet machine measured
/// (26 and 21 us beside 35 and 33 of wasmtime reused, of 0.3 47 and 40 beside 47), the aims are 14 and 24 us.
const COSTS: [Asked; 3] = [
    ("hello-0.2", Wasmhost, WasmtimeReused, [0.8, 0.7], 0.4),
    ("hello-0.2", WasmhostCall, WasmtimeDefaults, [0.5, 0.5], 0.4),
    ("hello-0.3", Wasmhost, WasmtimeReused, [1.05, 0.9], 0.5),
];

fn of_rates<'a>((case, this, that, least, aim): Asked, ratio: &'a Ratio) -> impl Iterator<Item = Goal> + 'a {
    CONNECTIONS.into_iter().zip(least).map(move |(connections, least)| {
        let found = ratio(case, RATE, this, that, connections);
        let what = format!("{case}, c={connections}: req/s of {} / {}", this.name(), that.name());
        Goal::at_least(least, what, found).aim(aim)
    })
}

fn of_costs<'a>((case, this, that, most, aim): Asked, ratio: &'a Ratio) -> impl Iterator<Item = Goal> + 'a {
    CONNECTIONS.into_iter().zip(most).map(move |(connections, most)| {
        let found = ratio(case, COST, this, that, connections);
        let what = format!("{case}, c={connections}: CPU/req of {} / {}", this.name(), that.name());
        Goal::below(most, what, found).aim(aim)
    })
}

/// Guests in other languages. A host bounds each call's time, which costs such a guest something: so the processor time
/// is compared with a wasmtime that does so too.
fn of_language(case: &str, connections: u32, ratio: &Ratio) -> [Goal; 3] {
    let named = |figure: &str, that: Contender| {
        format!("{case}, c={connections}: {figure} of wasmhost / {}", that.name())
    };
    let beside = |name, that| ratio(case, name, Wasmhost, that, connections);
    let bounded = WasmtimeBounded;
    [
        Goal::at_least(1.0, named("req/s", WasmtimeReused), beside(RATE, WasmtimeReused)),
        Goal::at_least(1.0, named("req/s", bounded), beside(RATE, bounded)).only_aimed_at(),
        Goal::below(1.1, named("CPU/req", bounded), beside(COST, bounded)).aim(1.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_costs_is_compared_round_by_round() {
        let mut section = Section::new("hello-0.2");
        for (contender, costs) in [(Wasmhost, [20.0, 30.0]), (WasmtimeReused, [40.0, 40.0])] {
            let mut row = Row::new(contender.name(), Some(16));
            costs.into_iter().for_each(|cost| row.add(COST, cost));
            section.rows.push(row);
        }
        let goals = goals(&[section]);
        let what = "hello-0.2, c=16: CPU/req of wasmhost / wasmtime serve, reused";
        let goal = goals.iter().find(|goal| goal.what == what).unwrap();
        assert_eq!(goal.found, Some(Spread { median: 0.625, min: 0.5, max: 0.75 }));
        assert_eq!((goal.goal, goal.aim), (Some(0.8), Some(0.4)));
    }
}
