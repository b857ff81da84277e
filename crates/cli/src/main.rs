//! The `wasmhost` binary: arguments in, exit code out.

mod app;
mod app_arguments;
mod args;
mod build;
mod cache;
mod check;
mod client;
mod compile;
mod complete;
mod componentize;
mod dashboard;
mod deploy;
mod dev;
mod enqueue;
mod events;
mod exec;
mod exit;
mod formation_file;
mod host_line;
mod host_log;
mod jobs;
mod logs;
mod man;
mod memory;
mod moment;
mod new;
mod print;
mod program;
mod ps;
mod releases;
mod run;
mod scale;
mod screen;
mod serve;
mod setup;
mod signals;
mod table;
mod threads;
mod ticks;
mod top;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Arguments, Verb};
use client::{Target, refuse_remote, refuse_remote_exec};
use exit::Outcome;
use formation_file::FormationFile;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == wasmhost_engine::CHILD) {
        return wasmhost_engine::compile_as_child(arguments);
    }
    signals::early::hold();
    if let Some(answered) = complete::answer(Arguments::command) {
        return print::end(answered);
    }
    let line = app_arguments::part(std::env::args_os().collect());
    print::end(match Arguments::try_parse_from(line) {
        Ok(arguments) => act(arguments),
        Err(said) => print::usage(said),
    })
}

fn act(Arguments { file, remote, verb }: Arguments) -> Outcome {
    let named = file.clone();
    if let Some(name) = verb.is_of_this_machine() {
        refuse_remote(name, &remote)?;
    }
    if !matches!(verb, Verb::Run(_)) {
        signals::early::let_go();
    }
    let at = || Target::find(file.clone(), &remote);
    let file = |argument: Option<PathBuf>| FormationFile::find(argument.or(file.clone()));
    match verb {
        Verb::Run(run) => run::run(file(run.file), run.app),
        Verb::Check(check) => check::check(&file(check.file), check.json),
        Verb::Compile(compile) => compile::compile(&compile),
        Verb::Ps(ps) => client::with(at()?, async |client| ps::ps(&client, &ps).await),
        Verb::Scale(scale) => client::with(at()?, async |client| scale::scale(&client, &scale).await),
        Verb::Deploy(deploy) => client::with(at()?, async |client| deploy::deploy(&client, &deploy).await),
        Verb::Promote(promote) => {
            client::with(at()?, async |client| deploy::promote(&client, &promote).await)
        }
        Verb::Abort(abort) => client::with(at()?, async |client| deploy::abort(&client, &abort).await),
        Verb::Rollback(rollback) => {
            client::with(at()?, async |client| deploy::rollback(&client, &rollback).await)
        }
        Verb::Releases(releases) => {
            client::with(at()?, async |client| releases::releases(&client, &releases).await)
        }
        Verb::Logs(logs) => {
            let target = Target::find(logs.file.clone().or(named), &remote)?;
            logs::refuse_slips(&logs, target.file().map(FormationFile::path))?;
            client::with(target, async |client| logs::logs(&client, &logs).await)
        }
        Verb::Events(events) => client::with(at()?, async |client| events::events(&client, &events).await),
        Verb::Restart(restart) => client::with(at()?, async |client| work::restart(&client, &restart).await),
        Verb::Stop(stop) => client::with(at()?, async |client| work::stop(&client, &stop).await),
        Verb::Exec(exec) => {
            refuse_remote_exec(named.as_ref(), &remote)?;
            exec::exec(file(None), exec)
        }
        Verb::Top => client::with(at()?, async |client| top::top(client).await),
        Verb::Dashboard(dashboard) => {
            client::with(at()?, async |client| dashboard::dashboard(client, &dashboard).await)
        }
        Verb::Enqueue(enqueue) => {
            client::with(at()?, async |client| enqueue::enqueue(&client, enqueue).await)
        }
        Verb::Jobs(jobs) => jobs::jobs(at()?, jobs.verb),
        Verb::Tick(tick) => client::with(at()?, async |client| work::tick(&client, &tick).await),
        Verb::Ticks(ticks) => client::with(at()?, async |client| ticks::ticks(&client, &ticks).await),
        Verb::New(arguments) => new::new(arguments),
        Verb::Build(arguments) => build::build(&file(None), &arguments),
        Verb::Dev(dev) => dev::dev(file(dev.file)),
        Verb::Componentize(arguments) => componentize::componentize(&arguments),
        Verb::Init(init) => setup::init::init(named, init),
        Verb::Import(import) => setup::import::import(named, import),
        Verb::Export(export) => setup::export::export(file(None), export),
        Verb::Completions { shell } => complete::script(shell),
        Verb::Man { directory } => man::man(Arguments::command(), &directory),
    }
}
