//! The `wasmhost` binary: arguments in, exit code out.

mod app;
mod args;
mod cache;
mod check;
mod client;
mod compile;
mod enqueue;
mod exit;
mod host_log;
mod jobs;
mod logs;
mod print;
mod ps;
mod run;
mod scale;
mod signals;
mod table;
mod threads;
mod ticks;
mod work;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Arguments, Verb};
use exit::{Exit, Outcome};

/// A ninth of a small request's time is spent allocating; this one does it in less.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    print::end(match Arguments::try_parse() {
        Ok(arguments) => act(arguments),
        Err(said) => print::usage(&said),
    })
}

fn act(Arguments { file, verb }: Arguments) -> Outcome {
    match verb {
        Verb::Run(run) => run::run(run, file),
        Verb::Check(check) => check::check(check.file.clone().or(file), &check),
        Verb::Compile(compile) => compile::compile(&compile),
        Verb::Ps(ps) => client::with(file, async |client| ps::ps(&client, &ps).await),
        Verb::Scale(scale) => client::with(file, async |client| scale::scale(&client, &scale).await),
        Verb::Logs(logs) => client::with(file, async |client| logs::logs(&client, &logs).await),
        Verb::Restart(restart) => client::with(file, async |client| work::restart(&client, &restart).await),
        Verb::Stop(stop) => client::with(file, async |client| work::stop(&client, &stop).await),
        Verb::Enqueue(enqueue) => client::with(file, async |client| enqueue::enqueue(&client, enqueue).await),
        Verb::Jobs(jobs) => jobs::jobs(file, jobs.verb),
        Verb::Tick(tick) => client::with(file, async |client| work::tick(&client, &tick).await),
        Verb::Ticks(ticks) => client::with(file, async |client| ticks::ticks(&client, &ticks).await),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "wasmhost", &mut script);
            print::raw(&String::from_utf8_lossy(&script));
            Ok(Exit::Done)
        }
    }
}
