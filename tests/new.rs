//! `wasmhost new`: what it writes builds, passes its own tests, and runs.
//!
//! A language whose tools aren't on this machine is left out, loudly. Those whose tools fill hundreds of megabytes are for
//! `cargo xtask test` where `cargo xtask guests --all` has built the examples in them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Formation, Host, eventually};

const KINDS: [&str; 3] = ["web", "worker", "clock"];

/// A project in a folder of a test's own.
struct Project {
    formation: Formation,
    name: String,
}

impl Project {
    /// Writes it. None where this machine lacks a tool for it.
    fn new(language: &str, kind: &str) -> Option<Project> {
        let name = format!("shop-{kind}");
        let formation = Formation::new();
        let written = formation.cli(["new", &name, "--lang", language, "--type", kind, "--json"]).done();
        let written: Value = serde_json::from_str(&written).unwrap();
        if let Some(missing) = written["missing"].as_str() {
            println!("LEFT OUT: projects in {language}: {missing}");
            return None;
        }
        let file = format!("{name}/formation.toml");
        let text = formation.read(&file).replace("127.0.0.1:8080", "127.0.0.1:0");
        let formation = formation
            .with_file(&file, &text)
            .variable("WASMHOST_FILE", &file)
            // Set by the cargo that runs the tests, for its own compiler and its own folder.
            .variable("LD_LIBRARY_PATH", "")
            .variable("CARGO_TARGET_DIR", "target");
        Some(Project { formation, name })
    }

    fn folder(&self) -> PathBuf {
        self.formation.path(&self.name)
    }

    /// Builds it, and runs its own tests. None where the compiler that there is can't.
    fn built(self, test: &str) -> Option<Project> {
        // The first one of a language compiles its libraries: it has as long as that takes.
        let built = self.formation.command(["build"]).output().unwrap();
        let said = String::from_utf8_lossy(&built.stderr).into_owned();
        if said.contains("no C compiler here builds for WebAssembly") {
            println!("LEFT OUT: projects in C: {said}");
            return None;
        }
        assert!(built.status.success(), "{said}");
        let tested = Command::new("sh")
            .args(["-c", test])
            .current_dir(self.folder())
            .env("CARGO_TARGET_DIR", "target/tests")
            .output()
            .unwrap();
        assert!(tested.status.success(), "{test}: {tested:#?}");
        let said = self.formation.cli(["build"]).done();
        assert!(said.contains("its sources haven't changed"), "{said}");
        Some(self)
    }

    /// Runs it, and has it called.
    fn works(&self) {
        let host = Host::run(&self.formation);
        match self.name.as_str() {
            "shop-web" => {
                assert_eq!(host.get("/?name=Ada").ok(), "Hello, Ada!\n");
                assert_eq!(host.get("/").ok(), "Hello, world!\n");
                assert_eq!(host.get("/elsewhere").status, 404);
            }
            "shop-worker" => {
                self.formation.cli(["enqueue", "default", "Ada"]).done();
                host.stdout().wait_for("Hello, Ada!");
            }
            _ => {
                self.formation.cli(["tick", "clock"]).done();
                host.stdout().wait_for("tick");
            }
        }
        host.stop().done();
    }

    /// Has `dev` follow an edit of a file.
    fn follows(&self, file: &str) {
        let host = Host::dev(&self.formation);
        let path = self.folder().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("Hello"), "{text}");
        fs::write(path, text.replace("Hello", "Howdy")).unwrap();
        eventually("the edit answers", || (host.get("/?name=Ada").ok() == "Howdy, Ada!\n").then_some(()));
        host.stop().done();
    }
}

fn all(language: &str, test: &str) -> Vec<Project> {
    KINDS.iter().filter_map(|kind| Project::new(language, kind)?.built(test)).collect()
}

/// One target folder for all projects in Rust, so that what they depend on is compiled once.
fn share_target(project: &Project) {
    let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new");
    fs::create_dir_all(&shared).unwrap();
    symlink(shared, project.folder().join("target")).unwrap();
}

#[test]
fn projects_in_c_build_and_run() {
    for project in all("c", "sh test.sh") {
        project.works();
        if project.name == "shop-web" {
            project.follows("src/greeting.c");
        }
    }
}

#[test]
fn projects_in_rust_build_and_run() {
    for kind in KINDS {
        let Some(project) = Project::new("rust", kind) else { return };
        share_target(&project);
        // The host's own compiler, which is there wherever these tests are.
        let Some(project) = project.built("cargo test --quiet") else { return };
        project.works();
        if kind == "web" {
            project.follows("src/lib.rs");
        }
    }
}

#[test]
#[ignore = "run by `cargo xtask test` where `cargo xtask guests --all` has built guests in TypeScript"]
fn typescript() {
    all("typescript", "npm test --silent").iter().for_each(Project::works);
}

#[test]
#[ignore = "run by `cargo xtask test` where `cargo xtask guests --all` has built guests in Python"]
fn python() {
    all("python", "python3 -m unittest").iter().for_each(Project::works);
}

#[test]
#[ignore = "run by `cargo xtask test` where `cargo xtask guests --all` has built guests in Go"]
fn go() {
    all("go", "go test ./greeting").iter().for_each(Project::works);
}

#[test]
fn a_folder_that_is_there_stays_and_a_bad_name_is_refused() {
    let formation = Formation::new().with_file("shop/note", "mine");
    formation.cli(["new", "shop", "--lang", "c"]).failed(2, "shop is there already, and stays as it is");
    assert_eq!(fs::read_dir(formation.path("shop")).unwrap().count(), 1);
    formation
        .cli(["new", "Shop", "--lang", "c"])
        .failed(2, "found the name \"Shop\", expected lower-case letters");
    formation.cli(["new", "match", "--lang", "rust"]).failed(2, "which compilers have for something else");
    formation.cli(["new", "..", "--lang", "c"]).failed(2, "expected that of a new folder");
    formation
        .cli(["new", "shop2", "--lang", "cobol"])
        .failed(2, "[possible values: rust, typescript, python, go, c]");
    formation.cli(["new", "shop2"]).failed(2, "--lang");
    assert!(!formation.path("shop2").exists());
}

#[test]
fn what_comes_next_is_said_and_so_is_a_tool_that_is_missing() {
    let formation = Formation::new().directory("bin").variable("PATH", "bin").variable("WASI_SDK_PATH", "");
    for (language, missing) in [
        ("rust", "cargo is missing: `curl -sSf https://sh.rustup.rs | sh` installs Rust"),
        ("typescript", "npm is missing: on Debian, as root: `apt-get install nodejs npm`"),
        ("python", "python3 is missing: on Debian, as root: `apt-get install python3 python3-venv`"),
        ("go", "go is missing: https://go.dev/dl has it"),
    ] {
        let said = formation.cli(["new", &format!("apps/{language}-shop"), "--lang", language]).done();
        assert!(said.starts_with(&format!("wrote apps/{language}-shop with a web process in ")), "{said}");
        assert!(said.contains(&format!("\nfirst: {missing}")), "{said}");
        assert!(said.ends_with(&format!(
            "\nnext: `cd apps/{language}-shop && wasmhost dev` builds and runs it, and again after each change\n"
        )), "{said}");
        let readme = formation.read(&format!("apps/{language}-shop/README.md"));
        assert!(readme.starts_with(&format!("# {language}-shop\n")), "{readme}");
    }
}
