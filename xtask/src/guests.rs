//! `cargo xtask guests` builds the components that the examples, the tests and the benchmarks run.
//!
//! Each [`Project`] is built by the tools of its language, which are looked for, or fetched, only when its sources
//! changed. Tools that fill hundreds of megabytes are fetched only for those who ask for their language. A project that
//! can't be built doesn't keep others from it: see [`NotBuilt`].

pub(crate) mod apt;
mod c;
mod clang;
mod component;
mod go;
pub(crate) mod python;
mod rust;
mod sources;
pub(crate) mod staging;
mod toolchain;
pub(crate) mod tools;
pub(crate) mod typescript;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{env, fs, process};

use anyhow::{Context, Error, Result, bail};
use component::Kind::{Library, Module, Program};
use rust::Guest;
use tools::Missing;

/// A folder of guests that are built together.
struct Project {
    /// In the repository.
    folder: &'static str,
    language: Language,
}

#[derive(Debug)]
enum Language {
    /// A cargo workspace, outside the host's.
    Rust(&'static [Guest]),
    C,
    TypeScript,
    Python,
    Go,
}

const PROJECTS: &[Project] = &[
    Project {
        folder: "examples/hello",
        language: Language::Rust(&[Guest { module: "hello.wasm", kind: Library, output: "hello.wasm" }]),
    },
    Project {
        folder: "examples/hello-async",
        language: Language::Rust(&[Guest {
            module: "hello_async.wasm",
            kind: Library,
            output: "hello-async.wasm",
        }]),
    },
    Project {
        folder: "examples/postgres",
        language: Language::Rust(&[Guest { module: "postgres.wasm", kind: Library, output: "web.wasm" }]),
    },
    Project { folder: "examples/c", language: Language::C },
    Project { folder: "examples/typescript", language: Language::TypeScript },
    Project { folder: "examples/python", language: Language::Python },
    Project { folder: "examples/go", language: Language::Go },
    Project {
        folder: "examples/shop",
        language: Language::Rust(&[
            Guest { module: "shop_web.wasm", kind: Library, output: "web.wasm" },
            Guest { module: "shop_worker.wasm", kind: Library, output: "worker.wasm" },
            Guest { module: "shop_clock.wasm", kind: Library, output: "clock.wasm" },
            Guest { module: "shop-prepare.wasm", kind: Program, output: "prepare.wasm" },
        ]),
    },
    Project {
        folder: "tests/guests",
        language: Language::Rust(&[
            Guest { module: "web_test.wasm", kind: Library, output: "out/web-test.wasm" },
            Guest { module: "job_test.wasm", kind: Library, output: "out/job-test.wasm" },
            Guest { module: "job_async.wasm", kind: Library, output: "out/job-async.wasm" },
            Guest { module: "tick_test.wasm", kind: Library, output: "out/tick-test.wasm" },
            Guest { module: "tick_async.wasm", kind: Library, output: "out/tick-async.wasm" },
            Guest { module: "cmd-test.wasm", kind: Program, output: "out/cmd-test.wasm" },
            Guest { module: "cmd-test.wasm", kind: Module, output: "out/cmd-test-core.wasm" },
            Guest { module: "cmd-queue.wasm", kind: Program, output: "out/cmd-queue.wasm" },
            Guest { module: "hostile02.wasm", kind: Library, output: "out/hostile02.wasm" },
            Guest { module: "hostile03.wasm", kind: Library, output: "out/hostile03.wasm" },
            Guest { module: "wasi02.wasm", kind: Library, output: "out/wasi02.wasm" },
            Guest { module: "wasi02_service.wasm", kind: Library, output: "out/wasi02-service.wasm" },
            Guest { module: "wasi03.wasm", kind: Library, output: "out/wasi03.wasm" },
            Guest { module: "wasi03-main.wasm", kind: Program, output: "out/wasi03-main.wasm" },
            Guest { module: "wasi03_service.wasm", kind: Library, output: "out/wasi03-service.wasm" },
        ]),
    },
    Project {
        folder: "bench/guests",
        language: Language::Rust(&[
            Guest { module: "bench_web.wasm", kind: Library, output: "out/web.wasm" },
            Guest { module: "bench_web_async.wasm", kind: Library, output: "out/web-async.wasm" },
            Guest { module: "bench_worker.wasm", kind: Library, output: "out/worker.wasm" },
            Guest { module: "bench_producer.wasm", kind: Library, output: "out/producer.wasm" },
        ]),
    },
];

/// Guests that are easier said in text, each of which becomes `tests/guests/out/NAME.wasm`. They are built with those
/// in Rust beside them.
const TEXT_GUESTS: &str = "tests/guests/wat";

/// Which guests are built.
pub(crate) enum Which {
    /// Those in Rust, which the tests and the benchmarks can't do without.
    Rust,
    /// Those whose tools are small: in Rust and C.
    Quick,
    All,
    /// The projects in folders of these names.
    Named(Vec<String>),
}

/// A project that can't be built here, and why.
pub(crate) struct NotBuilt {
    /// In the repository.
    pub(crate) folder: &'static str,
    pub(crate) why: Error,
}

impl NotBuilt {
    /// Whether nothing is wrong with the guests, and this machine has no tools for their language.
    pub(crate) fn lacks_tools(&self) -> bool {
        self.why.is::<Missing>()
    }
}

/// A project in another language than Rust, with a test of its own.
pub(crate) struct InOtherLanguage {
    pub(crate) name: &'static str,
    /// Whether its tools fill hundreds of megabytes, so that it is built only where somebody asked for it.
    pub(crate) is_slow: bool,
    /// Whether all its components are there, of whatever sources.
    pub(crate) is_built: bool,
}

/// The cargo workspaces of guests, by their folders in the repository.
pub(crate) fn cargo_folders() -> impl Iterator<Item = &'static str> {
    PROJECTS.iter().filter(|project| project.is_rust()).map(|project| project.folder)
}

pub(crate) fn in_other_languages(repository: &Path) -> impl Iterator<Item = InOtherLanguage> {
    let others = PROJECTS.iter().filter(|project| !project.is_rust());
    others.map(|project| {
        let folder = repository.join(project.folder);
        InOtherLanguage {
            name: project.name(),
            is_slow: !project.is_quick(),
            is_built: project.outputs().iter().all(|output| folder.join(output).exists()),
        }
    })
}

/// Builds the guests whose sources changed since they were last built; all of these with `force`. An error where one
/// can't be built, after all others have been.
pub(crate) fn build(repository: &Path, which: &Which, force: bool) -> Result<()> {
    let mut not_built = try_build(repository, which, force)?.into_iter();
    let Some(first) = not_built.next() else { return Ok(()) };
    for NotBuilt { folder, why } in not_built {
        println!("{folder} could not be built: {why:#}");
    }
    Err(first.why.context(format!("{} could not be built", first.folder)))
}

/// The same, and says which couldn't be built.
pub(crate) fn try_build(repository: &Path, which: &Which, force: bool) -> Result<Vec<NotBuilt>> {
    let target_folder = target_folder(repository);
    fs::create_dir_all(&target_folder).with_context(|| target_folder.display().to_string())?;
    let mut not_built = Vec::new();
    let projects = which.projects()?;
    for project in &projects {
        if let Err(why) = project.build_if_stale(repository, &target_folder, force) {
            not_built.push(NotBuilt { folder: project.folder, why });
        }
    }
    if projects.iter().any(|project| TEXT_GUESTS.starts_with(project.folder)) {
        assemble_text_guests(repository)?;
    }
    Ok(not_built)
}

/// The guests' own, apart from the host's: another compiler may fill it.
fn target_folder(repository: &Path) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository.join("target"), PathBuf::from);
    // Relative to where cargo was called, as cargo means it.
    env::current_dir().unwrap_or_default().join(target).join("guests")
}

impl Language {
    /// The sources of what builds it: where they change, components do.
    fn recipe(&self) -> &'static str {
        match self {
            Self::Rust(_) => {
                concat!(
                    include_str!("guests/rust.rs"),
                    include_str!("guests/toolchain.rs"),
                    include_str!("guests/component.rs")
                )
            }
            Self::C => {
                concat!(
                    include_str!("guests/c.rs"),
                    include_str!("guests/clang.rs"),
                    include_str!("guests/component.rs")
                )
            }
            Self::TypeScript => include_str!("guests/typescript.rs"),
            Self::Python => include_str!("guests/python.rs"),
            Self::Go => concat!(include_str!("guests/go.rs"), include_str!("guests/component.rs")),
        }
    }
}

impl Which {
    fn projects(&self) -> Result<Vec<&'static Project>> {
        let all = PROJECTS.iter();
        match self {
            Self::Rust => Ok(all.filter(|project| project.is_rust()).collect()),
            Self::Quick => Ok(all.filter(|project| project.is_quick()).collect()),
            Self::All => Ok(all.collect()),
            Self::Named(names) => names.iter().map(|name| named(name)).collect(),
        }
    }
}

fn named(name: &str) -> Result<&'static Project> {
    // As a shell completes it, too: `examples/go/`.
    let wanted = name.trim_end_matches('/');
    let Some(project) = PROJECTS.iter().find(|project| [project.name(), project.folder].contains(&wanted))
    else {
        let known: Vec<_> = PROJECTS.iter().map(Project::name).collect();
        bail!("there are no guests in a folder {name:?}, only in: {}", known.join(", "));
    };
    Ok(project)
}

impl Project {
    /// The folder's last part, or the whole where that isn't unique.
    fn name(&self) -> &'static str {
        self.folder.strip_prefix("examples/").unwrap_or(self.folder)
    }

    /// The components, in its folder.
    fn outputs(&self) -> Vec<&'static str> {
        match &self.language {
            Language::Rust(guests) => guests.iter().map(|guest| guest.output).collect(),
            Language::C => c::OUTPUTS.to_vec(),
            Language::TypeScript => typescript::OUTPUTS.to_vec(),
            Language::Python => python::OUTPUTS.to_vec(),
            Language::Go => go::OUTPUTS.to_vec(),
        }
    }

    fn is_rust(&self) -> bool {
        matches!(self.language, Language::Rust(_))
    }

    /// Whether no tools of hundreds of megabytes are needed.
    fn is_quick(&self) -> bool {
        matches!(self.language, Language::Rust(_) | Language::C)
    }

    fn build_if_stale(&self, repository: &Path, target_folder: &Path, force: bool) -> Result<()> {
        let stamp = target_folder.join(self.folder.replace('/', "-")).with_extension("stamp");
        let sources = self.hash_sources(repository)?;
        if !force && self.is_fresh(repository, &stamp, &sources) {
            return Ok(());
        }
        println!("building {}", self.folder);
        let started = Instant::now();
        let folder = repository.join(self.folder);
        let built = match &self.language {
            Language::Rust(guests) => rust::build(&folder, guests, target_folder),
            Language::C => c::build(&folder, target_folder),
            Language::TypeScript => typescript::build(&folder, target_folder),
            Language::Python => python::build(&folder, target_folder),
            Language::Go => go::build(&folder, target_folder),
        };
        built?;
        for output in self.outputs() {
            let bytes =
                fs::metadata(folder.join(output)).with_context(|| format!("{output} was not built"))?.len();
            println!("  {}/{output} ({} KB)", self.folder, bytes / 1000);
        }
        println!("  in {:.1} s", started.elapsed().as_secs_f64());
        fs::write(stamp, sources + &self.hash_outputs(repository)?)?;
        Ok(())
    }

    /// The stamp holds a hash of the sources and one of what was made of them.
    fn is_fresh(&self, repository: &Path, stamp: &Path, sources: &str) -> bool {
        let Ok(stamp) = fs::read_to_string(stamp) else { return false };
        let Ok(outputs) = self.hash_outputs(repository) else { return false };
        stamp == format!("{sources}{outputs}")
    }

    /// The hash of all that the components depend on: their own sources, the SDK's, and how they are made.
    fn hash_sources(&self, repository: &Path) -> Result<String> {
        let folders: &[&str] = match self.language {
            Language::Rust(_) => &[self.folder, "crates/guest", "wit"],
            _ => &[self.folder],
        };
        let recipe = format!("{:?}\n{}", self.language, self.language.recipe());
        sources::hash_folders(repository, folders, &recipe)
    }

    fn hash_outputs(&self, repository: &Path) -> Result<String> {
        let folder = repository.join(self.folder);
        sources::hash_files(repository, self.outputs().into_iter().map(|output| folder.join(output)))
    }
}

/// Assembling them is as quick as seeing whether they changed, so they are made each time.
fn assemble_text_guests(repository: &Path) -> Result<()> {
    for source in fs::read_dir(repository.join(TEXT_GUESTS)).context(TEXT_GUESTS)? {
        let source = source?.path();
        if source.extension() != Some(OsStr::new("wat")) {
            continue;
        }
        let name = source.with_extension("wasm");
        let name = name.file_name().unwrap_or_default();
        let binary = wat::parse_file(&source)?;
        let output = repository.join("tests/guests/out").join(name);
        if fs::read(&output).ok().as_ref() != Some(&binary) {
            replace(&output, &binary)?;
        }
    }
    Ok(())
}

/// Writes a file whole or not at all: a host that is running may just be loading it.
fn replace(file: &Path, contents: &[u8]) -> Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = file.with_extension(format!("{}.new", process::id()));
    fs::write(&new, contents).with_context(|| new.display().to_string())?;
    fs::rename(&new, file).with_context(|| file.display().to_string())
}
