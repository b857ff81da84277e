//! `bench http`: requests per second and their latency, beside other servers.
//!
//! Each server of a case is started once and measured in turn, round after round, so that a machine whose speed
//! drifts is as unfair to one as to the other.

use anyhow::{Error, Result};

use super::Bench;
use super::contender::Contender::{self, *};
use super::load::Request;
use super::report::{Goal, NotMeasured, Report, Row, Section};
use super::server::Server;
use super::spread::Spread;

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
const ALL: &[Contender] =
    &[NativeHyper, Workerd, WasmtimeDefaults, WasmtimeReused, Wasmhost, WasmhostCall, WasmhostNoFile];
/// workerd takes no component: once is enough.
const ALL_BUT_WORKERD: &[Contender] =
    &[NativeHyper, WasmtimeDefaults, WasmtimeReused, Wasmhost, WasmhostCall, WasmhostNoFile];
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
    for contender in case.contenders.iter().filter(|contender| bench.options.has_server(contender.name())) {
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
                let sample = bench.measure(server, case.request, connections)?;
                eprintln!(
                    "{} c={connections} {}: {:.0} req/s, p99 {:.2} ms{}",
                    case.name,
                    contender.name(),
                    sample.requests_per_second,
                    sample.p99_ms,
                    if sample.errors > 0 { format!(", {} ERRORS", sample.errors) } else { String::new() }
                );
                row.add_sample(&sample);
            }
        }
        these.sort_by_key(|running| case.contenders.iter().position(|other| *other == running.contender));
        for Running { contender, server, mut row } in these {
            row.add("resident_mib", server.memory()?.resident_kib / 1024.0);
            section.rows.push(row);
            running.push((contender, server));
        }
    }
    Ok(section)
}

/// What is asked of a host, as ratios of one run.
fn goals(sections: &[Section]) -> Vec<Goal> {
    let ratio = |case: &str, name, this: Contender, that: Contender, connections| {
        let section = sections.iter().find(|section| section.title == case)?;
        let of = |contender: Contender| section.samples(contender.name(), Some(connections), name);
        Spread::of_ratios(of(this), of(that))
    };
    let has = |case: &str| sections.iter().any(|section| section.title == case);
    let mut goals = Vec::new();
    // The case, who, beside whom, and at 16 and 64 connections the goal; then the aim.
    type Asked = (&'static str, Contender, Contender, [f64; 2], f64);
    const ASKED: [Asked; 4] = [
        ("hello-0.2", Wasmhost, WasmtimeReused, [1.3, 1.1], 1.5),
        ("hello-0.2", Wasmhost, WasmtimeDefaults, [8.0, 8.0], 10.0),
        ("hello-0.2", WasmhostCall, WasmtimeDefaults, [2.0, 2.0], 2.5),
        ("hello-0.3", Wasmhost, WasmtimeReused, [1.2, 1.2], 1.5),
    ];
    for (case, this, that, least, aim) in ASKED.into_iter().filter(|asked| has(asked.0)) {
        for (connections, least) in CONNECTIONS.into_iter().zip(least) {
            let found = ratio(case, RATE, this, that, connections);
            let what = format!("{case}, c={connections}: req/s of {} / {}", this.name(), that.name());
            goals.push(Goal::at_least(least, what, found).aim(aim));
        }
    }
    for case in ["hello-0.2", "hello-0.3"].into_iter().filter(|case| has(case)) {
        for connections in CONNECTIONS {
            let found = ratio(case, RATE, Wasmhost, NativeHyper, connections);
            let what = format!("{case}, c={connections}: req/s of wasmhost / {}", NativeHyper.name());
            goals.push(Goal::at_least(0.5, what, found).only_aimed_at());
            let found = ratio(case, "p99_ms", Wasmhost, WasmtimeReused, connections);
            let what = format!("{case}, c={connections}: p99 of wasmhost / {}", WasmtimeReused.name());
            goals.push(Goal::below(1.0, what, found));
        }
    }
    for case in ["typescript", "python", "c", "go"].into_iter().filter(|case| has(case)) {
        for connections in CONNECTIONS {
            let beside = |that: Contender| {
                let found = ratio(case, RATE, Wasmhost, that, connections);
                let what = format!("{case}, c={connections}: req/s of wasmhost / {}", that.name());
                Goal::at_least(1.0, what, found)
            };
            goals.push(beside(WasmtimeReused));
            goals.push(beside(WasmtimeBounded).only_aimed_at());
        }
    }
    goals
}
