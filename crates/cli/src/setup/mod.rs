//! Files that are written for a person: `import` of a Procfile, `init` of a folder with components, `export` to other
//! tools.

pub(crate) mod export;
mod found;
pub(crate) mod import;
pub(crate) mod init;
mod sockets;
mod systemd;
mod triggers;
mod unit;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

use wasmhost_config::Formation;

use crate::exit::{Exit, Failed};

/// Refuses to write over a file that a formation was read from, or that it names: what is written is made of it.
fn refuse_source(path: &Path, formation: &Formation) -> Result<(), Failed> {
    let Ok(output) = fs::canonicalize(path) else { return Ok(()) };
    let dotenv = formation.file.with_file_name(".env");
    let components = formation.processes.iter().map(|process| &process.component);
    let mut sources = [&formation.file, &dotenv].into_iter().chain(components).chain(&formation.secret_files);
    match sources.find(|source| fs::canonicalize(source).is_ok_and(|source| source == output)) {
        None => Ok(()),
        Some(source) => Err(Failed::new(
            Exit::Usage,
            format!(
                "{} is {}, which this is made of, and stays as it is: name another file",
                path.display(),
                source.display()
            ),
        )),
    }
}

/// Writes a file that isn't there yet, or replaces one as a whole.
fn write_file(path: &Path, text: &str, force: bool, instead: &str) -> Result<(), Failed> {
    let shown = path.display();
    let failed = |err| Failed::new(Exit::Failed, format!("can't write {shown}: {err}"));
    if force {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let beside =
            tempfile::Builder::new().prefix(".wasmhost-").make_in(folder.unwrap_or(Path::new(".")), create);
        let mut beside = beside.map_err(failed)?;
        beside.write_all(text.as_bytes()).map_err(failed)?;
        return beside.persist(path).map(drop).map_err(|err| failed(err.error));
    }
    let written = create(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|err| match err.kind() {
        ErrorKind::AlreadyExists => {
            Failed::new(Exit::Usage, format!("{shown} is there already, and stays as it is: {instead}"))
        }
        _ => failed(err),
    })
}

fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Whether a file, or a link to nowhere, has this name.
fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// `1 type`, `2 types`
fn counted(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}
