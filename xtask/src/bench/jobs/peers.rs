//! The queues of others: BullMQ and Celery, both on Redis. npm and pip fetch them into the target folder, in the versions
//! that `bench/peers` has locked. Their workers and clients are there too, in their own languages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
use tempfile::TempDir;

use super::super::process::{Process, go_on};
use super::super::programs::{on_path, version_of};
use super::super::{Bench, target_folder};
use super::redis::{Keeps, Redis};
use super::{PACE, Running, System, WORKERS, Work};
use crate::guests::{python, staging, typescript};

const BULLMQ: &str = "bench/peers/bullmq";
const CELERY: &str = "bench/peers/celery";

/// How long a worker may take to say that it is ready.
const START_MAX: Duration = Duration::from_secs(30);

/// How much of what a worker wrote goes into the reason why it didn't start.
const REASON_BYTES_MAX: usize = 300;

/// How Celery runs its jobs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pool {
    /// Processes, which is its default; here twice as many as there are cores.
    Prefork,
    Threads,
}

impl Pool {
    pub(super) fn name(self) -> &'static str {
        match self {
            Pool::Prefork => "prefork",
            Pool::Threads => "threads",
        }
    }

    fn concurrency(self) -> u32 {
        match self {
            Pool::Prefork => std::thread::available_parallelism().map_or(2, |cores| 2 * cores.get() as u32),
            Pool::Threads => WORKERS,
        }
    }
}

/// The peers that could be fetched.
pub(super) struct Peers {
    redis: Option<PathBuf>,
    bullmq: Result<Scripts>,
    celery: Result<Scripts>,
    locked: BTreeMap<&'static str, String>,
}

/// The program that runs a peer's scripts, and where they are.
struct Scripts {
    program: PathBuf,
    folder: PathBuf,
}

/// A Redis, a worker, and how clients are started.
pub(super) struct Peer {
    // In the order in which they end.
    worker: Option<Process>,
    redis: Redis,
    client: (PathBuf, PathBuf),
    notes: PathBuf,
    folder: TempDir,
}

impl Peers {
    pub(super) fn get(bench: &Bench) -> Result<Peers> {
        let target = target_folder(&bench.repository).join("peers");
        let redis = on_path("redis-server");
        // Nothing is fetched that isn't used.
        let install = |names: &[String], install: fn(&Path, &Path) -> Result<Scripts>, folder: &str| {
            if !names.iter().any(|name| bench.options.has_server(name)) {
                bail!("it was not asked for");
            }
            if redis.is_none() {
                bail!("redis-server is not on the path: `apt-get install redis-server`");
            }
            install(&bench.repository.join(folder), &target)
        };
        let (always, defaults) = (Keeps::Always, Keeps::Defaults);
        let bullmq = [always, defaults].map(|keeps| System::BullMq(keeps).name());
        let celery = [(always, Pool::Prefork), (defaults, Pool::Prefork), (always, Pool::Threads)]
            .map(|(keeps, pool)| System::Celery(keeps, pool).name());
        let bullmq = install(&bullmq, install_bullmq, BULLMQ);
        let celery = install(&celery, install_celery, CELERY);
        go_on()?;
        let read = |file: &str| std::fs::read_to_string(bench.repository.join(file)).unwrap_or_default();
        let mut locked = BTreeMap::new();
        if bullmq.is_ok() {
            let package: serde_json::Value =
                serde_json::from_str(&read(&format!("{BULLMQ}/package.json"))).unwrap_or_default();
            let version = package["dependencies"]["bullmq"].as_str();
            locked.extend(version.map(|version| ("BullMQ", version.to_owned())));
        }
        if celery.is_ok() {
            let requirements = read(&format!("{CELERY}/requirements.txt"));
            let line = requirements.lines().find_map(|line| line.strip_prefix("celery=="));
            let version = line.and_then(|line| line.split(' ').next());
            locked.extend(version.map(|version| ("Celery", version.to_owned())));
        }
        Ok(Peers { redis, bullmq, celery, locked })
    }

    /// The versions of all that is there.
    pub(super) fn versions(&self) -> BTreeMap<&'static str, String> {
        let mut versions = self.locked.clone();
        for (name, scripts) in [("Node.js", &self.bullmq), ("Python", &self.celery)] {
            let version = scripts.as_ref().ok().and_then(|scripts| version_of(&scripts.program, "--version"));
            versions.extend(version.map(|version| (name, version)));
        }
        // It says `v=7.0.15`.
        let redis = self.redis.as_ref().and_then(|redis| Command::new(redis).arg("--version").output().ok());
        let said = redis.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let version = said.as_ref().and_then(|said| said.split(' ').find_map(|word| word.strip_prefix("v=")));
        versions.extend(version.map(|version| ("Redis", version.to_owned())));
        versions
    }

    pub(super) fn bullmq(&self, keeps: Keeps, with_worker: bool) -> Result<Peer> {
        let scripts = there(&self.bullmq)?;
        let concurrency = WORKERS.to_string();
        let worker = ["worker.js", &concurrency];
        self.start(scripts, keeps, "client.js", with_worker.then_some(&worker))
    }

    pub(super) fn celery(&self, keeps: Keeps, pool: Pool, with_worker: bool) -> Result<Peer> {
        let scripts = there(&self.celery)?;
        let concurrency = pool.concurrency().to_string();
        let worker =
            ["-m", "celery", "-A", "jobs", "worker", "-l", "WARNING", "-P", pool.name(), "-c", &concurrency];
        self.start(scripts, keeps, "client.py", with_worker.then_some(&worker))
    }

    fn start(&self, scripts: &Scripts, keeps: Keeps, client: &str, worker: Option<&[&str]>) -> Result<Peer> {
        let redis = self.redis.as_ref().context("redis-server is missing")?;
        let folder = TempDir::new()?;
        let (data, notes) = (folder.path().join("redis"), folder.path().join("out"));
        std::fs::create_dir(&data)?;
        std::fs::create_dir(&notes)?;
        let redis = Redis::start(redis, &data, keeps)?;
        let client = (scripts.program.clone(), scripts.folder.join(client));
        let mut peer = Peer { worker: None, redis, client, notes, folder };
        if let Some(arguments) = worker {
            let mut command = Command::new(&scripts.program);
            command.args(arguments).current_dir(&scripts.folder);
            peer.start_worker(&mut command)?;
        }
        Ok(peer)
    }
}

fn there(installed: &Result<Scripts>) -> Result<&Scripts> {
    installed.as_ref().map_err(|err| Error::msg(format!("{err:#}")))
}

impl Peer {
    /// Runs it, and waits until it says that it is ready.
    fn start_worker(&mut self, command: &mut Command) -> Result<()> {
        let log = self.folder.path().join("log");
        let written = std::fs::File::create(&log)?;
        self.name_redis(command).stdout(written.try_clone()?).stderr(written);
        let start = Instant::now();
        let mut worker = Process::start(command)?;
        loop {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if said.lines().any(|line| line == "ready") {
                self.worker = Some(worker);
                return Ok(());
            }
            go_on()?;
            if worker.ended()?.is_some() || start.elapsed() > START_MAX {
                let from = said.char_indices().rev().nth(REASON_BYTES_MAX).map_or(0, |(at, _)| at);
                bail!("its worker didn't start: {}", said[from..].replace('\n', " "));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn name_redis<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .env("BENCH_REDIS_PORT", &self.redis.port)
            .env("BENCH_NOTES", &self.notes)
            // The sources' folder stays as it is.
            .env("PYTHONDONTWRITEBYTECODE", "1")
    }
}

impl Running for Peer {
    fn client(&self, work: Work, clients: u32, seconds: u64) -> Result<Command> {
        let (program, script) = &self.client;
        let mut command = Command::new(program);
        let mode = match work {
            Work::UntilDone { .. } => "until-done",
            Work::Enqueue => "enqueue",
            Work::Pace => "pace",
        };
        command.arg(script).arg(mode).args([clients.to_string(), seconds.to_string()]);
        if matches!(work, Work::Pace) {
            command.arg(PACE.to_string());
        }
        self.name_redis(&mut command);
        Ok(command)
    }

    fn notes(&self) -> &Path {
        &self.notes
    }

    fn processes(&self) -> Vec<i32> {
        let worker = self.worker.iter().map(Process::id);
        worker.chain([self.redis.process.id()]).collect()
    }
}

fn install_bullmq(folder: &Path, target: &Path) -> Result<Scripts> {
    let target = target.join("bullmq");
    staging::copy(folder, &target)?;
    typescript::install(&target)?;
    Ok(Scripts { program: on_path("node").context("node is not on the path")?, folder: target })
}

fn install_celery(folder: &Path, target: &Path) -> Result<Scripts> {
    std::fs::create_dir_all(target)?;
    let programs = python::environment(folder, target, "celery")?;
    Ok(Scripts { program: programs.join("python3"), folder: folder.to_path_buf() })
}
