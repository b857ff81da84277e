//! An instance in a place that others have had before it finds nothing of theirs: not in its memory, its table, its globals
//! or its handles, however those before it ended and whatever they left.
//!
//! That these tests find something where there is something to find was seen with a wasmtime that doesn't clear memory
//! (`reset_with_pagemap` returns at once) or tables.

use std::fs;

use crate::harness::{Formation, Host, eventually};

/// Instances that share few places.
fn worker(text: &str) -> Formation {
    let keys = "queue = \"q\"\nattempts = 1\ncount = 2\nmemory = \"16MiB\"\ntimeout = \"2s\"";
    let formation = Formation::new()
        .top("max_instances = 2")
        .table(&format!("[process.worker]\ncomponent = \"worker.wasm\"\n{keys}"));
    fs::write(formation.path("worker.wasm"), wat::parse_str(text).unwrap()).unwrap();
    formation
}

/// Runs these jobs, and returns each one's end.
fn ends(host: &Host, payloads: &[String]) -> Vec<(String, String)> {
    let ids: Vec<i64> = payloads.iter().map(|payload| host.enqueue("q", payload)).collect();
    let over = |state: &str| state == "done" || state == "dead";
    let jobs = eventually("all jobs are over", || {
        let jobs = host.store().jobs();
        jobs.iter().all(|job| over(&job.state)).then_some(jobs)
    });
    let of = |id: &i64| jobs.iter().find(|job| job.id == *id).unwrap();
    ids.iter().map(|id| (of(id).state.clone(), of(id).last_error.clone().unwrap_or_default())).collect()
}

#[test]
fn nothing_is_left_of_an_instance_however_it_ended() {
    let host = Host::run(&worker(include_str!("residue/worker.wat")));
    let mut payloads = Vec::new();
    for what in ["f", "s", "l"] {
        for how in ["r", "t", "o", "m", "d"] {
            // Each is followed by those that look at what it left, in both places.
            payloads.extend([format!("{what}{how}"), "fr".to_owned(), "fr".to_owned(), "lr".to_owned()]);
        }
    }
    for (payload, (state, error)) in payloads.iter().zip(ends(&host, &payloads)) {
        let expected = match &payload[1..] {
            "r" => ("done", ""),
            "t" => ("dead", "unreachable"),
            "o" => ("dead", "took longer than its timeout (ran "),
            "m" => ("dead", "memory: wanted"),
            _ => ("dead", "call stack exhausted"),
        };
        assert!(state == expected.0 && error.contains(expected.1), "{payload}: {state}, {error}");
    }
    host.stop().done();
}

#[test]
fn handles_begin_anew_with_each_instance() {
    let host = Host::run(&worker(include_str!("residue/handles.wat")));
    let payloads = vec!["any".to_owned(); 12];
    for (state, error) in ends(&host, &payloads) {
        assert_eq!((state.as_str(), error.as_str()), ("done", ""));
    }
    host.stop().done();
}
