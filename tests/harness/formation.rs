//! A formation in a temporary folder.

use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};
use std::sync::Arc;

use tempfile::TempDir;

use super::{Ended, Process, command, variant};

/// The token of [`Formation::admin`].
pub(crate) const TOKEN: &str = "Correct.Horse_Battery~Staple-0123456789+/=";

/// A `formation.toml` and what lies beside it. They are deleted when it and its hosts are dropped.
pub(crate) struct Formation {
    folder: Arc<TempDir>,
    top: String,
    tables: String,
    variables: Vec<(String, OsString)>,
}

impl Formation {
    /// No process types yet; requests on a free port.
    pub(crate) fn new() -> Formation {
        let folder = tempfile::Builder::new().prefix("wasmhost-").tempdir().unwrap();
        let tables = "[http]\nlisten = \"127.0.0.1:0\"\n".to_owned();
        Formation { folder: Arc::new(folder), top: "name = \"test\"\n".to_owned(), tables, variables: vec![] }
    }

    /// One http type, `web`, of the guest `web-test`.
    pub(crate) fn web(keys: &str) -> Formation {
        Formation::new().process("web", "web-test", keys)
    }

    /// examples/shop as it is, but for the port.
    pub(crate) fn shop() -> Formation {
        Formation::example("shop", &["web", "worker", "clock", "prepare"]).directory("data")
    }

    /// An example as it is, but for the port.
    pub(crate) fn example(name: &str, components: &[&str]) -> Formation {
        let example = repository().join("examples").join(name);
        let formation = Formation::new();
        for component in components {
            let file = format!("{component}.wasm");
            fs::copy(built(example.join(&file)), formation.path(&file)).unwrap();
        }
        let text = fs::read_to_string(example.join("formation.toml")).unwrap();
        let formation = formation.with_text(&text.replace("127.0.0.1:8080", "127.0.0.1:0"));
        assert!(formation.text().contains("127.0.0.1:0"), "the port of {name} has moved");
        formation
    }

    /// Another process type of one of the test guests.
    pub(crate) fn process(self, name: &str, guest: &str, keys: &str) -> Formation {
        let component = guest_file(guest);
        self.table(&format!("[process.{name}]\ncomponent = {component:?}\n{keys}"))
    }

    /// A process type whose component is a file of its own beside the formation, `NAME.wasm`: this version of a guest.
    pub(crate) fn versioned(self, name: &str, guest: &str, version: &str, keys: &str) -> Formation {
        self.build(name, guest, version);
        self.table(&format!("[process.{name}]\ncomponent = \"{name}.wasm\"\n{keys}"))
    }

    /// Puts another version in the place of a type's component, as a build does.
    pub(crate) fn build(&self, name: &str, guest: &str, version: &str) {
        let (new, file) = (self.path("being built"), self.path(&format!("{name}.wasm")));
        fs::write(&new, variant(guest, version)).unwrap();
        fs::rename(new, file).unwrap();
    }

    /// A table, such as `[queues.mail]`, with its keys.
    pub(crate) fn table(mut self, text: &str) -> Formation {
        writeln!(self.tables, "\n{text}").unwrap();
        self.write()
    }

    /// Keys of the top level.
    pub(crate) fn top(mut self, text: &str) -> Formation {
        writeln!(self.top, "{text}").unwrap();
        self.write()
    }

    /// Keys of `[http]`; `listen` among them replaces the free port.
    pub(crate) fn http(mut self, keys: &str) -> Formation {
        let given = keys.lines().any(|line| line.starts_with("listen"));
        let listen = if given { "" } else { "listen = \"127.0.0.1:0\"\n" };
        let rest = self.tables.split_once("listen = \"127.0.0.1:0\"\n").expect("no [http]").1;
        self.tables = format!("[http]\n{listen}{keys}\n{rest}");
        self.write()
    }

    /// Probes and metrics on a free port.
    pub(crate) fn health(self) -> Formation {
        self.table("[health]\nlisten = \"127.0.0.1:0\"")
    }

    /// The admin API by TCP on a free port of this machine, for those who show [`TOKEN`].
    pub(crate) fn admin(self) -> Formation {
        self.with_token("admin.token", TOKEN)
            .table("[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"admin.token\"")
    }

    /// A file with a token, which nobody else may read.
    pub(crate) fn with_token(self, name: &str, token: &str) -> Formation {
        use std::os::unix::fs::PermissionsExt;
        let formation = self.with_file(name, &format!("{token}\n"));
        fs::set_permissions(formation.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        formation
    }

    /// A directory beside the file.
    pub(crate) fn directory(self, name: &str) -> Formation {
        fs::create_dir_all(self.path(name)).unwrap();
        self
    }

    /// Another file, such as a Procfile.
    pub(crate) fn with_file(self, name: &str, text: &str) -> Formation {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// A copy of one of the test guests.
    pub(crate) fn with_guest(self, guest: &str, name: &str) -> Formation {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(guest_file(guest), path).unwrap();
        self
    }

    /// Another text in place of the whole file.
    pub(crate) fn with_text(mut self, text: &str) -> Formation {
        self.top = text.to_owned();
        self.tables = String::new();
        self.write()
    }

    /// A variable in the environment of what is run with this formation.
    pub(crate) fn variable(mut self, name: &str, value: impl Into<OsString>) -> Formation {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Other text in place of some.
    pub(crate) fn replace(self, old: &str, new: &str) -> Formation {
        let text = self.text();
        assert!(text.contains(old), "there is no {old:?} in\n{text}");
        self.with_text(&text.replace(old, new))
    }

    fn write(self) -> Formation {
        fs::write(self.file(), self.text()).unwrap();
        self
    }

    pub(crate) fn text(&self) -> String {
        format!("{}\n{}", self.top, self.tables)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.path("formation.toml")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the folder.
    pub(crate) fn keep(&self) -> Arc<TempDir> {
        self.folder.clone()
    }

    /// A path in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// A file's text; none while there is no such file.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// `wasmhost run`, where it ends by itself.
    pub(crate) fn run_to_end(&self) -> Ended {
        self.start(["run"]).wait()
    }

    /// Whether its host can be asked, and has started.
    pub(crate) fn is_up(&self) -> bool {
        let ps = self.cli(["ps", "--json"]);
        let view = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
        ps.code == 0 && view(&ps.stdout)["starting"].is_null()
    }

    /// Starts the binary with this formation.
    pub(crate) fn start<const N: usize>(&self, arguments: [&str; N]) -> Process {
        Process::start_with(self.folder(), arguments, "", &self.variables)
    }

    /// The binary with this formation, to be started.
    pub(crate) fn command<const N: usize>(&self, arguments: [&str; N]) -> Command {
        command(self.folder(), arguments, &self.variables)
    }

    /// The same with a standard input that stays open.
    pub(crate) fn start_with_stdin<const N: usize>(&self, arguments: [&str; N]) -> (ChildStdin, Process) {
        Process::start_with_stdin(self.folder(), arguments, &self.variables)
    }

    /// The same with arguments that are not known ahead.
    pub(crate) fn start_of(&self, arguments: Vec<&str>) -> Process {
        Process::start_with(self.folder(), arguments, "", &self.variables)
    }

    /// Any other verb, with this formation.
    pub(crate) fn cli<const N: usize>(&self, arguments: [&str; N]) -> Ended {
        self.start(arguments).wait()
    }
}

/// The file of a guest in tests/guests.
pub(crate) fn guest_file(guest: &str) -> PathBuf {
    built(guests().join(format!("{guest}.wasm")))
}

/// Where tests/guests are built to.
pub(crate) fn guests() -> PathBuf {
    repository().join("tests/guests/out")
}

pub(crate) fn repository() -> PathBuf {
    // As it runs: what was compiled in may be another clone's, where two of them share a target folder.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(package).ancestors().nth(2).unwrap().to_owned()
}

fn built(file: PathBuf) -> PathBuf {
    assert!(file.exists(), "{} is not built: `cargo xtask guests` builds it", file.display());
    file
}
