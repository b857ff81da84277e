//! A wasmhost with workers that have nothing to do, and with a guest that can enqueue.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::super::Bench;
use super::super::client::status_of;
use super::super::contender::wasmhost;
use super::super::programs::Build;
use super::super::server::{Server, Starting};
use super::{PACE, Running, Work};

const WORKER: &str = "bench/guests/out/worker.wasm";
const PRODUCER: &str = "bench/guests/out/producer.wasm";

/// Instances that enqueue.
const PRODUCERS: u32 = 16;

/// Jobs that one request puts on the queue when it is filled.
const FILLED_AT_ONCE: u32 = 50_000;

/// Who puts jobs on the queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The admin API, on its unix socket.
    Admin,
    /// A guest, for each request.
    Guest,
}

pub(super) struct Host {
    server: Server,
    folder: PathBuf,
    notes: PathBuf,
    jobs: PathBuf,
    by: Source,
}

impl Host {
    pub(super) fn start(bench: &Bench, build: Build, instances: u32, by: Source) -> Result<Host> {
        let starting = Starting::new()?;
        let folder = starting.folder().to_path_buf();
        let notes = folder.join("out");
        std::fs::create_dir(&notes)?;
        // A TOML string's escapes are those of JSON, as far as paths need them.
        let component = |path: &str| -> Result<_> {
            Ok(serde_json::Value::from(bench.component(path)?.to_string_lossy()))
        };
        let tables = format!(
            "[process.web]\ncomponent = {}\ncount = {PRODUCERS}\nenqueue = [\"default\"]\n\
             [process.worker]\ncomponent = {}\ncount = {instances}\nqueue = \"default\"\n\
             dirs = [{{ host = \"out\", guest = \"/out\", access = \"write\" }}]\n",
            component(PRODUCER)?,
            component(WORKER)?,
        );
        let mut command = wasmhost(&bench.programs, build, &starting, "", &tables)?;
        let server = starting.run(&mut command, "/", Duration::from_millis(20))?;
        Ok(Host { server, folder, notes, jobs: bench.programs.jobs.clone(), by })
    }

    pub(super) fn scale(&self, instances: u32) -> Result<()> {
        self.server.admin().scale("worker", instances)
    }

    /// Puts as many jobs on the queue.
    pub(super) fn fill(&self, jobs: u32) -> Result<()> {
        let mut left = jobs;
        while left > 0 {
            let count = left.min(FILLED_AT_ONCE);
            let status = status_of(&self.server.address, &format!("/many?count={count}"))?;
            ensure!(status == 201, "filling the queue was answered with {status}");
            left -= count;
        }
        Ok(())
    }
}

impl Running for Host {
    fn client(&self, work: Work, clients: u32, seconds: u64) -> Result<Command> {
        let source = match self.by {
            Source::Admin => self.folder.join(".wasmhost/admin.sock"),
            Source::Guest => self.server.url().into(),
        };
        let mut command = Command::new(&self.jobs);
        let mode = match work {
            Work::UntilDone { .. } => "until-done",
            Work::Enqueue => "enqueue",
            Work::Pace => "pace",
        };
        command.arg(mode).arg(source).args([clients.to_string(), seconds.to_string()]);
        match work {
            Work::UntilDone { priority } => {
                command.arg(self.folder.join(".wasmhost/store.db")).arg(priority.to_string())
            }
            Work::Enqueue => &mut command,
            Work::Pace => command.arg(PACE.to_string()),
        };
        Ok(command)
    }

    fn notes(&self) -> &Path {
        &self.notes
    }

    fn processes(&self) -> Vec<i32> {
        vec![self.server.process.id()]
    }
}
