//! `bench instances` measures how long many instances take to be live, how much memory each has, and whether they slow
//! requests down.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Bench;
use super::contender::{COUNT, wasmhost, web};
use super::http::{GUEST, GUEST_ASYNC};
use super::load::Request;
use super::memory::Memory;
use super::programs::Build;
use super::report::{Goal, Report, Row, Section};
use super::server::{Server, Starting};
use super::spread::Spread;

/// Live instances, one step after the other in one host.
const MANY: u32 = 1_000;
const MOST: u32 = 10_000;

/// Beside which throughput is compared.
const CONNECTIONS: [u32; 2] = [16, 64];

const RATE: &str = "requests_per_second";
const FROM_1: &str = "ms_from_1";

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let mut sections = Vec::new();
    let mut not_measured = Vec::new();
    let mut goals = Vec::new();
    let cases = [("hello-0.2", GUEST), ("hello-0.3", GUEST_ASYNC)];
    for (name, component) in cases.into_iter().filter(|(name, _)| bench.options.has_case(name)) {
        let component = bench.component(component)?;
        let mut leave_out =
            |what: &str, err| bench.leave_out(&mut not_measured, format!("{name}, {what}"), &err);
        let mut scaling = Section::new(format!("{name}: 1 -> {MANY} -> {MOST} live instances in one host"));
        // Where there is no room for the most, there may be for many.
        let keys = format!("max_instances = {MOST}");
        for (steps, keys) in [(&[MANY, MOST][..], keys.as_str()), (&[MANY][..], "")] {
            match scale(bench, name, &component, keys, steps) {
                Ok(rows) => {
                    scaling.rows = rows;
                    break;
                }
                Err(err) => leave_out(&format!("{} instances", steps[steps.len() - 1]), err)?,
            }
        }
        let mut rate = Section::new(format!("{name}: requests with {COUNT} and with {MANY} live instances"));
        match compare(bench, name, &component) {
            Ok(rows) => rate.rows = rows,
            Err(err) => leave_out("requests", err)?,
        }
        goals.extend(goals_of(name, &scaling, &rate));
        sections.extend([scaling, rate]);
    }
    let what = format!(
        "`wasmhost scale web=N` by the admin API, which answers when N instances are live; each round in a new host. Memory is \
         what the host's private memory grew by, divided by the instances: after the start, and after all of {MANY} have held \
         a request at once, with what its connection left behind. Requests: {}",
        bench.rounds()
    );
    Ok(bench.report("instances", what, goals, sections, not_measured))
}

fn goals_of(name: &str, scaling: &Section, rate: &Section) -> Vec<Goal> {
    let live = |count| live(Build::This, count);
    let of = |count: u32, figure| Spread::of(scaling.samples(&live(count), None, figure));
    let mut goals = vec![
        Goal::below(100.0, format!("{name}: ms from 1 to {MANY}"), of(MANY, FROM_1)),
        Goal::below(1000.0, format!("{name}: ms from 1 to {MOST}"), of(MOST, FROM_1)),
    ];
    for count in [MANY, MOST] {
        let found = of(count, "private_kib_each");
        goals.push(Goal::below(48.0, format!("{name}: KiB each of {count}"), found));
    }
    for connections in CONNECTIONS {
        let of = |count| rate.samples(&live(count), Some(connections), RATE);
        let ratio = Spread::of_ratios(of(MANY), of(COUNT));
        let what = format!("{name}, c={connections}: req/s with {MANY} instances / {COUNT}");
        goals.push(Goal::at_least(0.95, what, ratio));
    }
    goals
}

fn live(build: Build, count: u32) -> String {
    format!("{}, {count} instances", build.name())
}

fn start(bench: &Bench, build: Build, component: &Path, keys: &str, count: u32) -> Result<Server> {
    let starting = Starting::new()?;
    let mut command = wasmhost(&bench.programs, build, &starting, keys, &web(component, count, ""))?;
    starting.run(&mut command, "/", Duration::from_millis(20))
}

fn scale(bench: &Bench, case: &str, component: &Path, keys: &str, steps: &[u32]) -> Result<Vec<Row>> {
    let rows_of = |build: &Build| {
        let mut rows: Vec<Row> = steps.iter().map(|count| Row::new(live(*build, *count), None)).collect();
        rows.push(Row::new(format!("{}, each called", live(*build, MANY)), None));
        (*build, rows)
    };
    let mut all: Vec<(Build, Vec<Row>)> = bench.programs.builds().iter().map(rows_of).collect();
    for _ in 0..bench.options.rounds {
        for (build, rows) in &mut all {
            scale_once(bench, case, *build, component, keys, steps, rows)?;
        }
        all.rotate_left(1);
    }
    all.sort_by_key(|(build, _)| *build == Build::Before);
    Ok(all.into_iter().flat_map(|(_, rows)| rows).collect())
}

/// A row for each step, and one for instances that were called.
fn scale_once(
    bench: &Bench,
    case: &str,
    build: Build,
    component: &Path,
    keys: &str,
    steps: &[u32],
    rows: &mut [Row],
) -> Result<()> {
    let server = start(bench, build, component, keys, 1)?;
    let first = server.memory()?;
    let mut took_ms = 0.0;
    for (count, row) in steps.iter().zip(rows.iter_mut()) {
        let start = Instant::now();
        server.admin().scale("web", *count)?;
        took_ms += start.elapsed().as_secs_f64() * 1000.0;
        eprintln!("{case}, {}: 1 -> {count} instances in {took_ms:.0} ms", build.name());
        row.add(FROM_1, took_ms);
        add_memory(row, &server.memory()?, &first, count - 1);
    }
    // In a host of its own: a host with more instances has others to give.
    let server = start(bench, build, component, "", 1)?;
    let memory = server.memory()?;
    server.admin().scale("web", MANY)?;
    call_all(&server, MANY)?;
    add_memory(&mut rows[steps.len()], &server.memory()?, &memory, MANY - 1);
    Ok(())
}

fn add_memory(row: &mut Row, now: &Memory, before: &Memory, instances: u32) {
    let instances = f64::from(instances);
    row.add("private_kib_each", (now.private_kib - before.private_kib) / instances);
    row.add("resident_kib_each", (now.resident_kib - before.resident_kib) / instances);
}

/// Has each instance hold a request: as many at once, whose bodies come only when all of them wait for theirs.
fn call_all(server: &Server, count: u32) -> Result<()> {
    raise_file_limit();
    let mut calls = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(&server.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let head = format!("POST /sink HTTP/1.1\r\nHost: {}\r\nContent-Length: 2\r\n\r\n1", server.address);
        stream.write_all(head.as_bytes())?;
        calls.push(stream);
    }
    for stream in &mut calls {
        stream.write_all(b"2")?;
    }
    for stream in &mut calls {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).context("a request was not answered")?;
        ensure!(answer.ends_with(b" 200"), "a request failed: {}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}

/// A connection for each instance needs more files than a shell's limit often allows.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where it can't be raised, a connection fails and says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

fn compare(bench: &Bench, case: &str, component: &Path) -> Result<Vec<Row>> {
    let mut servers = Vec::new();
    for build in bench.programs.builds() {
        let few = start(bench, *build, component, "", COUNT)?;
        let many = start(bench, *build, component, "", MANY)?;
        // Its first answer comes before all of them are there.
        many.admin().scale("web", MANY)?;
        servers.extend([(live(*build, COUNT), few), (live(*build, MANY), many)]);
    }
    let mut all = Vec::new();
    for connections in CONNECTIONS {
        let mut rows: Vec<Row> = servers.iter().map(|(name, _)| Row::new(name, Some(connections))).collect();
        for (_, server) in &servers {
            bench.warm_up(server, Request::Get("/"), connections)?;
        }
        for round in 0..bench.options.rounds {
            let mut pairs: Vec<_> = servers.iter().zip(&mut rows).collect();
            if round % 2 == 1 {
                pairs.reverse();
            }
            for ((_, server), row) in pairs {
                let sample = bench.measure(server, Request::Get("/"), connections)?;
                eprintln!(
                    "{case} c={connections} {}: {:.0} req/s, p99 {:.2} ms",
                    row.server, sample.requests_per_second, sample.p99_ms
                );
                row.add_sample(&sample);
            }
        }
        all.extend(rows);
    }
    Ok(all)
}
