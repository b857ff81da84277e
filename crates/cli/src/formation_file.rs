//! The formation file that a verb works on, and where its name came from.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use wasmhost_config::{Formation, LoadError};

use crate::exit::{Exit, Failed};

/// The environment variable that names the formation where no argument does.
const VARIABLE: &str = "WASMHOST_FILE";

/// See the module.
pub(crate) struct FormationFile {
    path: PathBuf,
    named_by_variable: bool,
}

impl FormationFile {
    /// The file that was given, or the environment's, or `formation.toml` in this folder; a `Procfile` there where it
    /// has no formation.
    pub(crate) fn find(given: Option<PathBuf>) -> FormationFile {
        FormationFile::find_in(given, std::env::var_os(VARIABLE))
    }

    fn find_in(given: Option<PathBuf>, variable: Option<OsString>) -> FormationFile {
        // As in a shell, an empty variable is as good as none.
        let variable = variable.filter(|value| !value.is_empty()).map(PathBuf::from);
        let named_by_variable = given.is_none() && variable.is_some();
        let path = given.or(variable).unwrap_or_else(|| in_folder(Path::new("")));
        FormationFile { path, named_by_variable }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nobody named it in this command: it may be another file than a person thinks.
    pub(crate) fn is_named_by_variable(&self) -> bool {
        self.named_by_variable
    }

    /// Reads the formation.
    pub(crate) fn read(&self) -> Result<Formation, Failed> {
        wasmhost_config::load(&self.path).map_err(|err: LoadError| self.failed(Exit::Usage, err))
    }

    /// A failure that has to do with this file. It says who named the file, where that isn't in the command.
    pub(crate) fn failed(&self, exit: Exit, message: impl std::fmt::Display) -> Failed {
        match self.named_by_variable {
            true => Failed::new(
                exit,
                format!(
                    "{message}\nthe environment variable {VARIABLE} names {}: unset it, or name another file with -f",
                    self.path.display()
                ),
            ),
            false => Failed::new(exit, message),
        }
    }
}

/// The formation of a folder: its `formation.toml`, or the Procfile where there is that alone.
fn in_folder(folder: &Path) -> PathBuf {
    let (formation, procfile) = (folder.join("formation.toml"), folder.join("Procfile"));
    let is_there = |file: &Path| file.symlink_metadata().is_ok();
    if !is_there(&formation) && is_there(&procfile) { procfile } else { formation }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is(given: Option<&str>, variable: Option<&str>, path: &str, named_by_variable: bool) {
        let found = FormationFile::find_in(given.map(PathBuf::from), variable.map(OsString::from));
        assert_eq!((found.path(), found.is_named_by_variable()), (Path::new(path), named_by_variable));
        let says = found.failed(Exit::Usage, "wrong").message.contains("WASMHOST_FILE");
        assert_eq!(says, named_by_variable);
    }

    #[test]
    fn an_argument_wins_over_the_variable_and_the_variable_over_the_default() {
        is(Some("a.toml"), Some("b.toml"), "a.toml", false);
        is(None, Some("b.toml"), "b.toml", true);
        is(None, Some(""), "formation.toml", false);
        is(None, None, "formation.toml", false);
    }

    #[test]
    fn a_procfile_is_taken_where_it_is_alone() {
        let folder = tempfile::tempdir().unwrap();
        let found = || in_folder(folder.path()).strip_prefix(folder.path()).unwrap().to_owned();
        assert_eq!(found(), Path::new("formation.toml"));
        std::fs::write(folder.path().join("Procfile"), "").unwrap();
        assert_eq!(found(), Path::new("Procfile"));
        std::fs::write(folder.path().join("formation.toml"), "").unwrap();
        assert_eq!(found(), Path::new("formation.toml"));
    }
}
