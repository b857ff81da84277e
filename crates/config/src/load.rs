//! From a path or a text to a [`Formation`].

use crate::dotenv;
use crate::draft::Draft;
use crate::error::{LoadError, Problem};
use crate::expand::Environment;
use crate::files::read_file;
use crate::formation::{Formation, Source};
use crate::procfile::{self, PROCFILE_BYTES_MAX, is_procfile};
use crate::read;
use crate::reader::Reading;
use crate::report::Report;
use crate::written::Written;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use toml::de::DeTable;

/// A formation of thousands of types is far below this; what is larger is another kind of file.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The first bytes of a WebAssembly file.
const WASM_MAGIC: &[u8] = b"\0asm";

/// The surroundings of a formation's text.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    /// The file as its user named it: problems are printed with it. It isn't opened.
    pub file: &'a Path,
    /// The absolute folder that relative paths are relative to, and that names the app where the file
    /// doesn't.
    pub folder: &'a Path,
    /// Looks a variable of the host's environment up.
    pub environment: &'a dyn Fn(&str) -> Option<OsString>,
    /// The text of the `.env` beside the file, where there is one.
    pub dotenv: Option<&'a str>,
}

/// The state directory of a formation that doesn't name one: `.wasmhost` beside `formation.toml`, and
/// `.wasmhost-NAME` beside `NAME.toml`, so that two formations in one folder have nothing in common. A `Procfile` has
/// that of the formation.toml that is imported from it, so that its jobs stay.
pub fn default_state_dir(file: &Path) -> PathBuf {
    let mut name = OsString::from(".wasmhost");
    let of_file = file_name(file);
    if of_file != Path::new("formation.toml") && of_file != Path::new("Procfile") {
        name.push("-");
        name.push(if of_file.extension() == Some("toml".as_ref()) {
            of_file.with_extension("")
        } else {
            of_file.into()
        });
    }
    file.with_file_name(name)
}

/// Reads a formation file or a Procfile, the `.env` beside it, and the process's environment.
///
/// # Errors
///
/// The file is missing, unreadable, or wrong: then with every problem in it.
pub fn load(path: &Path) -> Result<Formation, LoadError> {
    load_with(path, &environment)
}

/// The same with another environment.
///
/// # Errors
///
/// As of [`load`].
pub fn load_with(
    path: &Path,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Formation, LoadError> {
    with_text(path, environment, read_source)
}

/// Reads a formation of these texts as if they were in that file and in the `.env` beside it: paths are relative to its
/// folder, and the environment is the process's. The file itself isn't read, and need not be there. Where the text is a
/// Procfile's and the file is none, or the other way round, the text is that of the other file beside it.
///
/// # Errors
///
/// [`LoadError::Invalid`], with every problem in the texts; [`LoadError::Unreadable`] where there is no working
/// directory that a relative path could be relative to.
pub fn restore(file: &Path, source: &Source) -> Result<Formation, LoadError> {
    let beside = match (procfile::is_text(&source.text), is_procfile(file)) {
        (true, false) => Some(file.with_file_name("Procfile")),
        (false, true) => Some(file.with_file_name("formation.toml")),
        _ => None,
    };
    let file = beside.as_deref().unwrap_or(file);
    let absolute = std::path::absolute(file);
    let absolute = absolute.map_err(|source| LoadError::Unreadable { file: file.to_owned(), source })?;
    let folder = folder_of(&absolute);
    let dotenv = source.dotenv.as_deref();
    let origin = Origin { file, folder: &folder, environment: &environment, dotenv };
    read_source(&source.text, &origin, Vec::new())
}

/// Reads a formation that keeps the texts that it was read from.
fn read_source(text: &str, origin: &Origin<'_>, problems: Vec<Problem>) -> Result<Formation, LoadError> {
    let formation = read(text, origin, problems)?;
    let source = Source { text: text.to_owned(), dotenv: origin.dotenv.map(str::to_owned) };
    Ok(Formation { source, ..formation })
}

/// Reads a Procfile and the `.env` beside it into the formation.toml that says the same.
///
/// # Errors
///
/// As of [`load`].
pub fn load_procfile(path: &Path) -> Result<Draft, LoadError> {
    with_text(path, &environment, |text, origin, mut problems| {
        let environment = environment_of(origin, &mut problems);
        let mut report = Report::new(origin.file, text);
        let procfile::Read { draft, .. } = procfile::read(text, &mut report, &environment);
        problems.extend(report.into_problems());
        ended(Some(draft), problems)
    })
}

/// The line of each type of a Procfile; none where it can't be read.
pub fn procfile_lines(path: &Path) -> BTreeMap<String, usize> {
    let lines = with_text(path, &|_| None, |text, origin, _| {
        let environment = Environment { host: origin.environment, dotenv: BTreeMap::new() };
        let mut report = Report::new(origin.file, text);
        let places = procfile::read(text, &mut report, &environment).places;
        Ok(places.into_iter().map(|(name, (line, _))| (name, line)).collect())
    });
    lines.unwrap_or_default()
}

/// Reads a file's text and what is beside it, for a reader of the text.
fn with_text<T>(
    path: &Path,
    environment: &dyn Fn(&str) -> Option<OsString>,
    read: impl FnOnce(&str, &Origin<'_>, Vec<Problem>) -> Result<T, LoadError>,
) -> Result<T, LoadError> {
    let unreadable = |source| LoadError::Unreadable { file: path.to_owned(), source };
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    let bytes = read_file(&absolute, bytes_max(path)).map_err(|error| match error.kind() {
        ErrorKind::NotFound => LoadError::NotFound { file: path.to_owned(), looked_at: absolute.clone() },
        ErrorKind::IsADirectory => LoadError::IsDirectory { file: path.to_owned() },
        _ => unreadable(error),
    })?;
    let text = formation_text(path, bytes).map_err(|problem| LoadError::Invalid(vec![problem]))?;
    let folder = folder_of(&absolute);
    let (dotenv, dotenv_problem) = read_dotenv(path, &folder);
    let origin = Origin { file: path, folder: &folder, environment, dotenv: dotenv.as_deref() };
    read(&text, &origin, dotenv_problem.into_iter().collect())
}

/// Variables by which a service manager speaks with the host itself.
const OF_THE_HOST: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"];

/// A variable of this process's environment, as far as a guest may be given it: those of a service manager are not there.
pub fn environment(name: &str) -> Option<OsString> {
    if OF_THE_HOST.contains(&name) { None } else { std::env::var_os(name) }
}

/// Reads a formation's text, or a Procfile's if its file is called so. The only files that are read are those that `env` names with `file`.
///
/// # Errors
///
/// [`LoadError::Invalid`], with every problem in the text.
pub fn parse(text: &str, origin: &Origin<'_>) -> Result<Formation, LoadError> {
    read(text, origin, Vec::new())
}

fn read(text: &str, origin: &Origin<'_>, mut problems: Vec<Problem>) -> Result<Formation, LoadError> {
    let environment = environment_of(origin, &mut problems);
    if !is_procfile(origin.file) {
        let (formation, found) = read_toml(text, origin, environment);
        problems.extend(found);
        return ended(formation, problems);
    }
    let mut report = Report::new(origin.file, text);
    let procfile = procfile::read(text, &mut report, &environment);
    problems.extend(report.into_problems());
    if !problems.is_empty() {
        return ended(None, problems);
    }
    let (formation, found) = read_toml(&procfile.draft.to_toml(), origin, environment);
    problems.extend(found.into_iter().map(|problem| procfile.placed(problem)));
    ended(formation, problems)
}

/// The formation, if nothing is wrong. Problems are told in the files' order.
fn ended<T>(read: Option<T>, mut problems: Vec<Problem>) -> Result<T, LoadError> {
    problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    match read {
        Some(read) if problems.is_empty() => Ok(read),
        _ => Err(LoadError::Invalid(problems)),
    }
}

fn environment_of<'a>(origin: &Origin<'a>, problems: &mut Vec<Problem>) -> Environment<'a> {
    let mut dotenv = BTreeMap::new();
    if let Some(text) = origin.dotenv {
        let shown = origin.file.with_file_name(".env");
        let mut report = Report::new(&shown, text);
        dotenv = dotenv::parse(text, &mut report);
        problems.extend(report.into_problems());
    }
    Environment { host: origin.environment, dotenv }
}

fn read_toml(
    text: &str,
    origin: &Origin<'_>,
    environment: Environment<'_>,
) -> (Option<Formation>, Vec<Problem>) {
    let mut cx = Reading {
        report: Report::new(origin.file, text),
        environment,
        folder: origin.folder,
        secret_files: Vec::new(),
        written: Written::default(),
        listed: BTreeMap::new(),
    };
    let file = origin.folder.join(file_name(origin.file));
    let tree = syntax(text, &mut cx.report);
    let formation = tree.map(|tree| read::formation(&mut cx, &tree, file));
    (formation, cx.report.into_problems())
}

/// The TOML tree; `None` where what follows a syntax error can't be told. A key that is given twice doesn't
/// hide the rest of the file.
fn syntax<'t>(text: &'t str, report: &mut Report<'_>) -> Option<DeTable<'t>> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let mut sound = true;
    let mut line_before = 0;
    for error in &errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        if error.message() == "duplicate key" {
            let key = text.get(span.clone()).unwrap_or_default();
            report.add(&span, key, "given twice: keep one of the two");
            continue;
        }
        sound = false;
        // The parser goes on after an error, and what it says about the rest of that line is seldom true.
        let line = report.line(span.start);
        if line != line_before {
            report.add(&span, "", format!("not valid TOML: {}", error.message()));
        }
        line_before = line;
    }
    sound.then(|| tree.into_inner())
}

/// The text of a formation file, or why these bytes can't be one.
fn formation_text(file: &Path, bytes: Option<Vec<u8>>) -> Result<String, Problem> {
    let problem = |line, column, message: &str| Problem {
        file: file.to_owned(),
        line,
        column,
        key: String::new(),
        message: message.to_owned(),
    };
    let Some(bytes) = bytes else {
        return Err(match is_procfile(file) {
            true => problem(1, 1, "found a file of more than 64 KiB, expected a Procfile"),
            false => problem(1, 1, "found a file of more than 4 MiB, expected a formation file"),
        });
    };
    if bytes.starts_with(WASM_MAGIC) {
        let message = "found WebAssembly, expected a formation file, which names this one as the component \
                       of a process type";
        return Err(problem(1, 1, message));
    }
    utf8(bytes)
        .map_err(|(line, column)| problem(line, column, "found a byte that isn't UTF-8, expected text"))
}

fn bytes_max(file: &Path) -> u64 {
    if is_procfile(file) { PROCFILE_BYTES_MAX } else { FILE_BYTES_MAX }
}

fn utf8(bytes: Vec<u8>) -> Result<String, (usize, usize)> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        Report::new(Path::new(""), &String::from_utf8_lossy(&error.as_bytes()[..valid])).position(valid)
    })
}

/// The text of `.env`, where there is one, or what is wrong with it.
fn read_dotenv(formation: &Path, folder: &Path) -> (Option<String>, Option<Problem>) {
    let problem = |(line, column), message: String| {
        let file = formation.with_file_name(".env");
        (None, Some(Problem { file, line, column, key: String::new(), message }))
    };
    match read_file(&folder.join(".env"), FILE_BYTES_MAX) {
        // A directory is taken for none: Python keeps its virtual environments under that name.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => (None, None),
        Err(error) => problem((1, 1), format!("can't be read: {error}")),
        Ok(None) => problem((1, 1), "found a file of more than 4 MiB, expected KEY=VALUE lines".to_owned()),
        Ok(Some(bytes)) => match utf8(bytes) {
            Ok(text) => (Some(text), None),
            Err(at) => problem(at, "found a byte that isn't UTF-8, expected text".to_owned()),
        },
    }
}

/// The folder that a file is in. With `..` in it, it is resolved: its name is the app's. Otherwise links
/// stay, since `/srv/app/current` should be one place whatever it points to.
fn folder_of(file: &Path) -> PathBuf {
    let folder = file.parent().unwrap_or(Path::new("/"));
    match folder.components().any(|component| component == Component::ParentDir) {
        true => fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned()),
        false => folder.to_owned(),
    }
}

fn file_name(file: &Path) -> &Path {
    Path::new(file.file_name().unwrap_or("formation.toml".as_ref()))
}
