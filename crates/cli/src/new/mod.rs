//! `wasmhost new`: a folder with a project of one process type, which builds and runs as it is.

mod embedded;
mod language;
mod project;
pub(crate) mod tools;

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;
use wasmhost_config::name_problem;

use crate::args::project::New;
use crate::exit::{Exit, Failed, Outcome};
use crate::print;
pub(crate) use language::{Kind, Language};
use project::Project;

/// `--json`
#[derive(Serialize)]
struct Written<'a> {
    /// The folder that was made.
    folder: &'a Path,
    /// The formation in it.
    file: &'a Path,
    /// A tool that the project needs and this machine lacks, and the line that installs it, for a person.
    missing: Option<&'a str>,
}

pub(crate) fn new(new: New) -> Outcome {
    let folder = new.folder.as_path();
    let name = name(folder)?;
    let project = Project { name, language: new.lang, kind: new.kind };
    let (files, missing) = project.files();
    make_folder(folder)?;
    for file in &files {
        let path = folder.join(&file.path);
        write(&path, &file.bytes, file.is_script)
            .map_err(|err| Failed::new(Exit::Failed, format!("can't write {}: {err}", path.display())))?;
    }
    let formation = folder.join("formation.toml");
    if new.json {
        print::json(&Written { folder, file: &formation, missing: missing.as_deref() })?;
        return Ok(Exit::Done);
    }
    let shown = folder.display();
    print::line(format_args!("wrote {shown} with a {} process in {}", new.kind.word(), new.lang.word()));
    if let Some(missing) = &missing {
        print::line(format_args!("first: {missing}"));
    }
    print::line(format_args!(
        "next: `cd {shown} && wasmhost dev` builds and runs it, and again after each change"
    ));
    Ok(Exit::Done)
}

/// Names that a compiler has for something else.
const TAKEN: [&str; 13] = [
    "alloc",
    "build",
    "core",
    "crate",
    "deps",
    "host",
    "internal",
    "main",
    "proc-macro",
    "self",
    "std",
    "test",
    "wasmhost-guest",
];

/// Words of Rust and Go, which no package can be called.
const KEYWORDS: [&str; 49] = [
    "abstract",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "case",
    "chan",
    "const",
    "continue",
    "default",
    "defer",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "func",
    "gen",
    "go",
    "goto",
    "if",
    "impl",
    "import",
    "in",
    "interface",
    "let",
    "loop",
    "macro",
    "map",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "package",
    "priv",
    "pub",
    "range",
    "ref",
    "return",
    "select",
    "struct",
    "where",
];

/// The project's name: the folder's.
fn name(folder: &Path) -> Result<String, Failed> {
    let refused = |why| Failed::new(Exit::Usage, why);
    let Some(name) = folder.file_name() else {
        let found = folder.to_string_lossy();
        return Err(refused(format!(
            "found the name {found:?}, expected that of a new folder, such as shop"
        )));
    };
    let name = name.to_string_lossy().into_owned();
    match name_problem(&name) {
        Some(problem) => Err(refused(problem)),
        None if TAKEN.contains(&name.as_str()) || KEYWORDS.contains(&name.as_str()) => Err(refused(format!(
            "found the name {name:?}, which compilers have for something else: expected another one"
        ))),
        None => Ok(name),
    }
}

/// Makes a folder that isn't there.
fn make_folder(folder: &Path) -> Result<(), Failed> {
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)
            .map_err(|err| Failed::new(Exit::Failed, format!("can't make {}: {err}", parent.display())))?;
    }
    let shown = folder.display();
    fs::create_dir(folder).map_err(|err| match err.kind() {
        ErrorKind::AlreadyExists => Failed::new(
            Exit::Usage,
            format!(
                "{shown} is there already, and stays as it is: give another name, or remove it to begin again"
            ),
        ),
        _ => Failed::new(Exit::Failed, format!("can't make {shown}: {err}")),
    })
}

fn write(path: &Path, bytes: &[u8], is_script: bool) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mode = if is_script { 0o777 } else { 0o666 };
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_fit_for_every_language() {
        assert_eq!(name(Path::new("apps/shop-2")).unwrap(), "shop-2");
        for wrong in
            ["", "..", "/", "Shop", "2shop", "a b", "shop_2", "test", "match", "func", "shop.d", "-v", "ö"]
        {
            let failed = name(Path::new(wrong)).unwrap_err();
            assert_eq!(failed.exit, Exit::Usage, "{wrong}");
            assert!(failed.message.starts_with("found the name "), "{}", failed.message);
        }
    }
}
