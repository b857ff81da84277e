//! `wasmhost export systemd`: a formation -> a service unit, and socket units for what it listens on.
//!
//! The sockets are systemd's, so that no connection is refused while the host is started again; the host takes them by
//! their addresses. The service may write to its state, its cache and the directories that the formation grants to write
//! in, and sees no home and no `/tmp` but for the folders it needs.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use wasmhost_config::{Formation, StoreUrl, load_with, units};
use wasmhost_host::Plan;

use super::sockets::{self, Sockets};
use super::unit::{self, Unit, Unnameable, shell_word};
use super::{refuse_source, write_file};
use crate::args::setup::Systemd;
use crate::check::plan;
use crate::exit::{Exit, Failed, Outcome};
use crate::formation_file::FormationFile;
use crate::print;

/// Settings that are the same for all. They take from the service what a host never needs.
const HARDENING: &str = include_str!("hardening.txt");

/// Compiling large components, and release steps.
const START_TIMEOUT_S: u64 = 15 * 60;

/// Beyond `drain_delay` and `grace`: the store is closed, and the last lines are written.
const STOP_EXTRA_S: u64 = 15;

/// Descriptors where connections aren't many: files and sockets of guests, granted directories of each instance.
const FILES_MIN: u64 = 65_536;

/// Folders that the service doesn't see, unless it needs something in them.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// The values that go into the units.
struct Service<'a> {
    name: &'a str,
    user: &'a str,
    binary: PathBuf,
    formation: &'a Formation,
    sockets: &'a Sockets,
}

/// `--json`
#[derive(Serialize)]
struct Exported<'a> {
    /// The files that were written.
    files: &'a [PathBuf],
    /// Their user.
    user: &'a str,
    /// Variables that the formation takes from the environment, which belong in `/etc/default/NAME`.
    variables: &'a BTreeSet<String>,
    /// Steps that enable them, and more that a person has to know.
    note: &'a str,
    /// Places that no unit has, for a person.
    left: &'a [String],
}

pub(crate) fn export(file: &FormationFile, to: &Systemd) -> Outcome {
    let plan = plan(file)?;
    let name = to.name.clone().unwrap_or_else(|| slug(&plan.formation.name));
    let user = to.user.clone().unwrap_or_else(|| user_of(&plan.formation, &name));
    let sockets = sockets(&plan, to, &name, &user)?;
    let binary = std::env::current_exe()?;
    let service = Service { name: &name, user: &user, binary, formation: &plan.formation, sockets: &sockets };
    let text = service.text().map_err(refused)?;
    fs::create_dir_all(&to.dir).map_err(|err| {
        Failed::new(Exit::Failed, format!("can't make the folder {}: {err}", to.dir.display()))
    })?;
    let units = std::iter::once((format!("{name}.service"), text)).chain(sockets.units);
    let (mut written, mut files) = (Vec::new(), Vec::new());
    for (unit, text) in units {
        let path = to.dir.join(&unit);
        refuse_source(&path, &plan.formation)?;
        write_file(&path, &text, to.force, "--force writes over it, and --name takes another name")?;
        if !to.json {
            print::line(format_args!("wrote {}", path.display()));
        }
        written.push(unit);
        files.push(path);
    }
    let variables = variables_of_environment(file);
    let note = note(&plan.formation, &to.dir, &name, &user, &written, &variables);
    if to.json {
        let (user, note) = (user.as_str(), note.as_str());
        print::json(&Exported { files: &files, user, variables: &variables, note, left: &sockets.left })?;
        return Ok(Exit::Done);
    }
    print::text(&note);
    for left in sockets.left {
        print::note(format_args!("note: {left}"));
    }
    Ok(Exit::Done)
}

fn refused(Unnameable(message): Unnameable) -> Failed {
    Failed::new(Exit::Usage, message)
}

fn sockets(plan: &Plan, to: &Systemd, name: &str, user: &str) -> Result<Sockets, Failed> {
    let http = plan.has_http().then_some(&plan.formation.http);
    let apart: Vec<_> = plan.formation.places_apart().cloned().collect();
    if http.is_none() && apart.is_empty() && !to.listen.is_empty() {
        return Err(Failed::new(Exit::Usage, "--listen: no process type of the formation takes requests"));
    }
    sockets::sockets(http, &apart, &to.listen, name, user)
}

impl Service<'_> {
    fn text(&self) -> Result<String, Unnameable> {
        let formation = self.formation;
        let mut unit = Unit::default();
        unit.comment(&format!("Written by `wasmhost export systemd` for {}.", formation.file.display()));
        unit.section("Unit");
        unit.set("Description", unit::text(&format!("{}, by wasmhost", formation.name)));
        unit.set("Wants", "network-online.target");
        unit.set("After", "network-online.target");
        unit.set("RequiresMountsFor", unit::listed_path(self.folder())?);
        unit.comment("The host is started again however often it ends.");
        unit.set("StartLimitIntervalSec", 0);
        unit.section("Service");
        self.process(&mut unit)?;
        unit.set("LimitNOFILE", self.files());
        self.folders(&mut unit)?;
        unit.lines(HARDENING);
        unit.section("Install");
        unit.set("WantedBy", "multi-user.target");
        Ok(unit.into_text())
    }

    /// The process itself: how it is started, watched and stopped.
    fn process(&self, unit: &mut Unit) -> Result<(), Unnameable> {
        let formation = self.formation;
        unit.comment("The host says when its instances are up, and how many there are.");
        unit.set("Type", "notify");
        unit.set("NotifyAccess", "main");
        unit.set("User", self.user);
        unit.set("WorkingDirectory", unit::whole_path(self.folder())?);
        let (binary, file) = (unit::utf8(&self.binary)?, unit::utf8(&formation.file)?);
        unit.set("ExecStart", format_args!("{} run {}", unit::program(binary), unit::word(file)));
        unit.comment("A reload deploys what the files are by then. Where that fails, it fails, and the host runs on as it was.");
        unit.set("ExecReload", format_args!("{} -f {} deploy", unit::program(binary), unit::word(file)));
        if !self.sockets.names.is_empty() {
            unit.set("Sockets", self.sockets.names.join(" "));
        }
        unit.comment(
            "Variables that the formation takes from the environment, KEY=VALUE lines for root's eyes alone.",
        );
        unit.set("EnvironmentFile", format_args!("-/etc/default/{}", self.name));
        unit.comment("Compiled components.");
        unit.set("CacheDirectory", self.name);
        unit.set("CacheDirectoryMode", "0700");
        unit.set("Environment", format_args!("WASMHOST_CACHE_DIR=/var/cache/{}", self.name));
        unit.set("TimeoutStartSec", format_args!("{START_TIMEOUT_S}s"));
        let drain = formation.grace.saturating_add(formation.drain_delay);
        let stop_s = drain.as_secs().saturating_add(STOP_EXTRA_S);
        unit.comment(&format!(
            "Longer than grace and drain_delay ({}), so that calls under way are finished and not killed.",
            units::format_duration(drain)
        ));
        unit.set("TimeoutStopSec", format_args!("{stop_s}s"));
        unit.set("KillMode", "mixed");
        unit.comment("Where memory runs out, a process that compiles goes first, and the host is told.");
        unit.set("OOMPolicy", "continue");
        unit.comment("A host whose supervisor hangs is ended.");
        unit.set("WatchdogSec", "30s");
        unit.set("Restart", "on-failure");
        unit.set("RestartSec", "2s");
        unit.comment("A formation or a component that is wrong doesn't become right by being started again.");
        unit.set("RestartPreventExitStatus", "2 4");
        Ok(())
    }

    /// Each connection is an open file.
    fn files(&self) -> u64 {
        let connections = u64::from(self.formation.http.connections_max);
        FILES_MIN.max(connections.saturating_mul(2).saturating_add(FILES_MIN / 2))
    }

    fn folder(&self) -> &Path {
        self.formation.file.parent().unwrap_or(Path::new("/"))
    }

    /// Folders that the service may write to, and its view of homes and temporary folders.
    fn folders(&self, unit: &mut Unit) -> Result<(), Unnameable> {
        let (written, read) = (self.written(), self.read());
        let is_in_home = |path: &&PathBuf| HOMES.iter().any(|home| path.starts_with(home));
        let needs_home = written.iter().chain(&read).any(|path| is_in_home(&path));
        unit.set("ProtectHome", if needs_home { "tmpfs" } else { "yes" });
        let hidden =
            |path: &&PathBuf| is_in_home(path) || TEMPORARY.iter().any(|place| path.starts_with(place));
        for path in read.iter().filter(hidden) {
            unit.set("BindReadOnlyPaths", unit::bound_path(path)?);
        }
        for path in &written {
            match hidden(&path) {
                true => unit.set("BindPaths", unit::bound_path(path)?),
                false => unit.set("ReadWritePaths", unit::listed_path(path)?),
            }
        }
        Ok(())
    }

    /// Directories that the host or a guest writes to.
    fn written(&self) -> BTreeSet<PathBuf> {
        let formation = self.formation;
        let mut paths = BTreeSet::from([formation.state_dir.clone()]);
        if let StoreUrl::Sqlite(store) = &formation.store
            && let Some(folder) = store.parent()
        {
            paths.insert(folder.to_owned());
        }
        let dirs = formation.processes.iter().flat_map(|process| &process.grants.dirs);
        paths.extend(dirs.filter(|dir| dir.writable).map(|dir| dir.host.clone()));
        outermost(paths)
    }

    /// Directories that the host or a guest reads from. Files are found by their folders, since one that is replaced is
    /// another file under the same name.
    fn read(&self) -> BTreeSet<PathBuf> {
        let formation = self.formation;
        let mut files = vec![&formation.file, &self.binary];
        files.extend(formation.processes.iter().map(|process| &process.component));
        files.extend(&formation.secret_files);
        files.extend(formation.admin.iter().map(|admin| &admin.token));
        files.extend(formation.certificates().flat_map(|files| [&files.cert, &files.key]));
        let folders = files.into_iter().filter_map(|file| file.parent()).map(Path::to_owned);
        let dirs = formation.processes.iter().flat_map(|process| &process.grants.dirs);
        outermost(folders.chain(dirs.map(|dir| dir.host.clone())).collect())
    }
}

/// Without the directories that lie in another one of them.
fn outermost(paths: BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let is_inner = |path: &PathBuf| path.ancestors().skip(1).any(|above| paths.contains(above));
    paths.iter().filter(|path| !is_inner(path)).cloned().collect()
}

/// A name that needs no escape anywhere.
fn slug(name: &str) -> String {
    let fit: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let fit = fit.trim_matches('-');
    match &fit[..fit.len().min(64)] {
        "" => "wasmhost".to_owned(),
        fit => fit.trim_end_matches('-').to_owned(),
    }
}

/// The owner of the formation's folder; a user of the service's own where that is root.
fn user_of(formation: &Formation, name: &str) -> String {
    let folder = formation.file.parent().unwrap_or(Path::new("/"));
    match fs::metadata(folder).map(|found| found.uid()) {
        Ok(uid) if uid != 0 => user_name(uid).unwrap_or_else(|| uid.to_string()),
        _ if name.starts_with(|c: char| c.is_ascii_alphabetic()) => name[..name.len().min(31)].to_owned(),
        _ => format!("wasmhost-{}", &name[..name.len().min(22)]),
    }
}

/// A user's name in /etc/passwd.
fn user_name(uid: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let mut users = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    users
        .find(|fields| fields.get(2).is_some_and(|field| field.parse() == Ok(uid)))
        .map(|fields| fields[0].to_owned())
}

fn is_user(name: &str) -> bool {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    name.parse::<u32>().is_ok() || passwd.lines().any(|line| line.split(':').next() == Some(name))
}

/// Variables of this shell's environment that the formation asked for. The service has another environment.
fn variables_of_environment(file: &FormationFile) -> BTreeSet<String> {
    let asked = RefCell::new(BTreeSet::new());
    let look = |name: &str| {
        let value = std::env::var_os(name)?;
        asked.borrow_mut().insert(name.to_owned());
        Some(value)
    };
    // It has been read before: only the names are wanted.
    let _ = load_with(file.path(), &look);
    asked.into_inner()
}

/// A person's next steps.
fn note(
    formation: &Formation,
    dir: &Path,
    name: &str,
    user: &str,
    units: &[String],
    variables: &BTreeSet<String>,
) -> String {
    let paths: Vec<_> = units.iter().map(|unit| shell_word(&dir.join(unit).to_string_lossy())).collect();
    let enabled: Vec<_> = units.iter().map(|unit| shell_word(unit)).collect();
    let state_dir = shell_word(&formation.state_dir.to_string_lossy());
    let mut lines = vec!["To enable them, as root:".to_owned()];
    if !is_user(user) {
        lines.push(format!("  useradd --system --no-create-home --shell /usr/sbin/nologin {user}"));
    }
    lines.push(format!("  install -d -o {user} -m 0700 {state_dir}"));
    if !variables.is_empty() {
        let names: Vec<_> = variables.iter().map(|name| format!("{name}=...")).collect();
        lines.push(format!("  install -m 0600 /dev/null /etc/default/{name}"));
        lines.push(format!("  editor /etc/default/{name}    # a line for each: {}", names.join(" ")));
    }
    lines.push(format!("  install -m 0644 {} /etc/systemd/system/", paths.join(" ")));
    lines.push("  systemctl daemon-reload".to_owned());
    lines.push(format!("  systemctl enable --now {}", enabled.join(" ")));
    lines.push(String::new());
    let file = shell_word(&formation.file.to_string_lossy());
    lines.push(format!("Other verbs: sudo -u {user} wasmhost -f {file} ps"));
    lines.push(format!("{user} has to be able to read the formation, .env, and the components."));
    let dirs = formation.processes.iter().flat_map(|process| &process.grants.dirs);
    for dir in dirs.filter(|dir| dir.writable).map(|dir| &dir.host).collect::<BTreeSet<_>>() {
        lines.push(format!("{user} has to be able to write to {}.", dir.display()));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fit_for_units_and_users() {
        for (name, expected) in
            [("shop", "shop"), ("My Shop!", "my-shop"), ("ü", "wasmhost"), ("a\nb%c", "a-b-c")]
        {
            assert_eq!(slug(name), expected, "{name}");
        }
        assert_eq!(slug(&"x-".repeat(100)).len(), 63);
    }

    #[test]
    fn a_directory_in_another_one_is_not_listed() {
        let paths = ["/a/b", "/a", "/ab", "/c/d/e", "/c/d"].map(PathBuf::from);
        assert_eq!(outermost(paths.into()), ["/a", "/ab", "/c/d"].map(PathBuf::from).into());
    }
}
