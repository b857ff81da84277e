//! `wasmhost dev`: builds, runs, watches, and deploys what changed.
//!
//! ```text
//! look -> build what is stale -> (first) start the host -> wait for a change -> look -> build -> deploy -> wait ...
//! ```
//!
//! The host is that of `run`, in this process, and a deploy is that of `deploy`: so no request is dropped. Until there is
//! something to run, and whenever something doesn't work, it says why, and waits for the next change.

mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tracing::{error, info};
use wasmhost_config::{CertificateFiles, Formation};
use wasmhost_host::admin::api::LogLine;
use wasmhost_host::{GrantedBy, Host, LogFormat, Output, Plan, render};

use crate::build::{Build, Builder, Place, Sources};
use crate::check::plan;
use crate::exit::{Exit, Failed, Outcome};
use crate::formation_file::FormationFile;
use crate::host_line::has_colour;
use crate::host_log;
use crate::serve::serve;
use crate::signals;
use watch::Watch;

/// Builds in a row that are begun for changes that came while the one before ran: a build that changes its own sources
/// would go on for ever.
const AGAIN_MAX: usize = 3;

pub(crate) fn dev(file: FormationFile) -> Outcome {
    host_log::with(|output| {
        let mut dev = Dev::new(file, output.clone())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let first = runtime.block_on(async {
            let ended = signals::end_of_program();
            tokio::select! {
                biased;
                code = ended => Ok(Err(Exit::OfProgram(code?))),
                plan = dev.first() => plan.map(Ok),
            }
        });
        match first? {
            Ok(plan) => serve(plan, GrantedBy::Formation, output, Some(dev)),
            Err(exit) => Ok(exit),
        }
    })
}

/// A formation whose changes are followed.
pub(crate) struct Dev {
    file: FormationFile,
    output: Output,
    watch: Watch,
    /// The formation as it could last be read.
    formation: Option<Formation>,
    /// The texts and files that were last deployed, or tried.
    deployed: Deployed,
    /// Builds that failed, and the digest of what they failed for.
    failed: BTreeMap<String, String>,
    /// The errors of the file that were told last.
    told: Option<String>,
}

/// Everything but sources that a deploy works from: texts, and what tells files apart.
#[derive(Default, PartialEq, Eq)]
struct Deployed {
    text: String,
    dotenv: Option<String>,
    files: BTreeMap<PathBuf, Option<(u64, u64, i64, i64)>>,
}

/// The end of all builds.
enum Built {
    /// All components are as their sources want them.
    All,
    /// One failed, which was told.
    NotAll,
}

/// How one build ended.
enum Ended {
    Built,
    /// That was told.
    Failed,
    /// Its sources changed while it ran.
    Interrupted,
}

impl Dev {
    fn new(file: FormationFile, output: Output) -> Result<Dev, Failed> {
        let mut watch = Watch::start()?;
        watch.set(BTreeSet::from([folder_of(file.path())]))?;
        Ok(Dev {
            file,
            output,
            watch,
            formation: None,
            deployed: Deployed::default(),
            failed: BTreeMap::new(),
            told: None,
        })
    }

    /// Waits until there is something to run.
    async fn first(&mut self) -> Result<Plan, Failed> {
        loop {
            if let (true, Built::All) = (self.read(), self.build().await?) {
                self.deployed = self.now();
                match plan(&self.file) {
                    Ok(plan) => return Ok(plan),
                    Err(failed) => self.tell(&failed.message),
                }
            }
            info!("waiting for a change");
            self.watch.changed().await;
        }
    }

    /// Follows changes for as long as the host serves.
    pub(crate) async fn follow(&mut self, host: &Host) {
        loop {
            if let Err(failed) = self.turn(host).await {
                error!("{}", failed.message);
            }
            self.watch.changed().await;
        }
    }

    async fn turn(&mut self, host: &Host) -> Result<(), Failed> {
        // All that was built is deployed together, or none of it.
        if !self.read() || matches!(self.build().await?, Built::NotAll) {
            return Ok(());
        }
        let now = self.now();
        if now != self.deployed {
            self.deployed = now;
            host.deploy().await;
        }
        Ok(())
    }

    /// Reads the formation. False where it has errors, which are told once.
    fn read(&mut self) -> bool {
        match self.file.read() {
            Ok(formation) => {
                self.told = None;
                self.formation = Some(formation);
                true
            }
            Err(failed) => {
                self.tell(&failed.message);
                false
            }
        }
    }

    fn tell(&mut self, message: &str) {
        if self.told.as_deref() != Some(message) {
            error!("{message}");
            self.told = Some(message.to_owned());
        }
    }

    /// Builds what is stale. A change of the sources meanwhile ends a build, and begins it again.
    async fn build(&mut self) -> Result<Built, Failed> {
        let Some(formation) = self.formation.clone() else { return Ok(Built::NotAll) };
        let mut all = Built::All;
        let builds = Build::of(&formation, |_| true);
        if builds.is_empty() {
            self.watch.set(self.folders(&formation, &Sources::default()))?;
        }
        for build in builds {
            let mut built = 0;
            while built < AGAIN_MAX {
                let mut builder = Builder::new(&formation);
                let sources = self.look(&formation, &builder)?;
                if builder.is_fresh(&build, &sources) {
                    break;
                }
                let has_failed = self.failed.get(&build.command) == Some(&sources.digest());
                let ended = match has_failed {
                    true => Ended::Failed,
                    false => self.build_once(&mut builder, &build, sources).await?,
                };
                match ended {
                    Ended::Built => built += 1,
                    Ended::Interrupted => {}
                    Ended::Failed => {
                        all = Built::NotAll;
                        break;
                    }
                }
            }
        }
        Ok(all)
    }

    /// Looks at the sources, and watches the folders that they are in.
    fn look(&mut self, formation: &Formation, builder: &Builder) -> Result<Sources, Failed> {
        loop {
            let sources = builder.look()?;
            if !self.watch.set(self.folders(formation, &sources))? {
                return Ok(sources);
            }
        }
    }

    async fn build_once(
        &mut self,
        builder: &mut Builder,
        build: &Build,
        sources: Sources,
    ) -> Result<Ended, Failed> {
        let (names, begun, digest) = (build.names(), Instant::now(), sources.digest());
        info!("building {names}");
        let place = builder.place().clone();
        let mut building = builder.start(build)?;
        let output = self.output.clone();
        let ended = tokio::select! {
            ended = builder.finish(build, &mut building, sources, |line| say(&output, &names, line)) => ended,
            () = other_sources(&self.watch, &place, &digest) => return Ok(Ended::Interrupted),
        };
        match ended {
            Ok(()) => {
                info!("built {names} in {:.1} s", begun.elapsed().as_secs_f64());
                self.failed.remove(&build.command);
                Ok(Ended::Built)
            }
            Err(failed) => {
                error!("{failed}");
                self.failed.insert(build.command.clone(), digest);
                Ok(Ended::Failed)
            }
        }
    }

    /// The folders in which a change matters.
    fn folders(&self, formation: &Formation, sources: &Sources) -> BTreeSet<PathBuf> {
        let of_files = files(formation).into_iter().filter_map(|file| file.parent().map(Path::to_owned));
        let mut folders: BTreeSet<_> = of_files.filter(|folder| folder.is_dir()).collect();
        folders.insert(folder_of(self.file.path()));
        folders.extend(sources.folders.iter().cloned());
        folders
    }

    fn now(&self) -> Deployed {
        let Some(formation) = &self.formation else { return Deployed::default() };
        let files = files(formation).into_iter().map(|file| {
            let about = std::fs::metadata(&file).ok();
            let about = about.map(|about| (about.ino(), about.len(), about.mtime(), about.mtime_nsec()));
            (file, about)
        });
        let (text, dotenv) = (formation.source.text.clone(), formation.source.dotenv.clone());
        Deployed { text, dotenv, files: files.collect() }
    }
}

/// Waits until the sources are others than those that a build began with.
async fn other_sources(watch: &Watch, place: &Place, digest: &str) {
    loop {
        watch.changed().await;
        // One that can't be looked at now is looked at after the build.
        if place.look().is_ok_and(|sources| sources.digest() != digest) {
            return;
        }
    }
}

/// The files that a formation names: components, secrets, certificates.
fn files(formation: &Formation) -> Vec<PathBuf> {
    let components = formation.processes.iter().map(|process| process.component.clone());
    let certificates =
        formation.certificates().flat_map(|files: &CertificateFiles| [files.cert.clone(), files.key.clone()]);
    components.chain(formation.secret_files.iter().cloned()).chain(certificates).collect()
}

/// The absolute folder that a formation is in.
fn folder_of(file: &Path) -> PathBuf {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    file.parent().unwrap_or(Path::new("/")).to_owned()
}

/// A line of a build, as guests' lines look.
fn say(output: &Output, names: &str, line: &str) {
    let time = format!("{:.3}", jiff::Timestamp::now());
    let line = LogLine {
        time,
        instance: format!("{names}.build"),
        stream: "stderr".to_owned(),
        line: line.to_owned(),
    };
    let mut text = String::new();
    let format = match std::io::stderr().is_terminal() {
        true if has_colour() => LogFormat::Coloured,
        true => LogFormat::Plain,
        false => LogFormat::Json,
    };
    render(&line, format, &mut text);
    output.own().put(text);
}
