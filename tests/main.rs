//! Black-box tests: each runs the built `wasmhost` on a formation of its own, in a folder of its own, on a free port,
//! with real components, and looks at what a person or a client would see: exit codes, output, answers, files.
//!
//! They need the guests: `cargo xtask guests` builds them.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the test runner shows it with a failure")]

mod admin;
mod answers;
mod bounds_of_files;
mod cache;
mod canary;
mod canary_ends;
mod cli;
mod commands;
mod compiling;
mod completions;
mod crash;
mod database;
mod deaths;
mod deploy_faults;
mod deploys;
mod deploys_failing;
mod deploys_listeners;
mod disk_full;
mod drain;
mod exec;
mod exec_releases;
mod faults;
mod grants;
mod guarded;
mod harness;
mod ingress_addresses;
mod ingress_answers;
mod ingress_bounds;
mod ingress_framing;
mod ingress_heads;
mod ingress_http2;
mod ingress_listen;
mod ingress_refusals;
mod ingress_slow;
mod ingress_tls;
mod isolation;
mod jobs;
mod jobs_kept;
mod jobs_people;
mod jobs_together;
mod languages;
mod lasting;
mod loading;
mod logs;
mod output;
mod output_verbs;
mod procfile;
mod queue_keys;
mod recycling;
mod releases_kept;
mod reuse;
mod rollbacks;
mod run_app;
mod run_app_known;
mod sandbox;
mod scale;
mod setup;
mod shown;
mod signals;
mod start;
mod state;
mod systemd;
mod systemd_itself;
mod texts;
mod ticks;
mod together;
mod units;
mod verbs;
mod wasi;
mod watch;
mod web;
