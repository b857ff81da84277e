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

use crate::exit::{Exit, Failed};

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
