//! `wasmhost init`: the components in a folder -> a formation.toml with the trigger that each exports.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use wasmhost_config::{Draft, DraftType, name_problem, read_file, shown};
use wasmhost_engine::{FILE_BYTES_MAX, Inspection, inspect};

use super::found::{COMPONENTS_MAX, Found, find};
use super::{counted, is_there, triggers, write_file};
use crate::args::setup::Init;
use crate::exit::{Exit, Failed, Outcome};
use crate::print;

/// `--json`
#[derive(Serialize)]
struct Written<'a> {
    /// The file that was written.
    file: &'a Path,
    /// The process types' names.
    types: Vec<&'a str>,
    /// Files that were left out and why, for a person.
    left_out: &'a [String],
}

pub(crate) fn init(file: Option<PathBuf>, init: Init) -> Outcome {
    let folder = init.folder.unwrap_or_default();
    let file = file.unwrap_or_else(|| folder.join("formation.toml"));
    let instead = "remove it to begin again, or name another file with -f";
    if is_there(&file) {
        return Err(Failed::new(
            Exit::Usage,
            format!("{} is there already, and stays as it is: {instead}", file.display()),
        ));
    }
    // Paths begin at the file's folder.
    let folder = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let found = find(&folder)
        .map_err(|err| Failed::new(Exit::Failed, format!("can't look into {}: {err}", folder.display())))?;
    let (mut draft, seen) = draft(&folder, &found);
    if draft.types.is_empty() {
        return Err(nothing(&folder, &draft));
    }
    triggers::add(&mut draft.types, &seen);
    write_file(&file, &draft.to_toml(), false, instead)?;
    if init.json {
        let types = draft.types.iter().map(|process| process.name.as_str()).collect();
        print::json(&Written { file: &file, types, left_out: &draft.tail })?;
        return Ok(Exit::Done);
    }
    let run = match file.file_name() == Some("formation.toml".as_ref()) && folder == Path::new(".") {
        true => "wasmhost run".to_owned(),
        false => format!("wasmhost run {}", file.display()),
    };
    print::line(format_args!(
        "wrote {} with {}; next: `{run}`",
        file.display(),
        counted(draft.types.len(), "process type")
    ));
    Ok(Exit::Done)
}

/// The types, and what their components are.
fn draft(folder: &Path, found: &Found) -> (Draft, Vec<Option<Inspection>>) {
    let mut draft = Draft::default();
    let (mut seen, mut names) = (Vec::new(), BTreeSet::new());
    for path in &found.files {
        // A `${` in a file's name is no variable.
        let text = path.to_string_lossy().replace("${", "$${");
        let inspected = look(&folder.join(path));
        match inspected {
            Ok(inspection) => {
                let name = name(path, &mut names);
                draft.types.push(DraftType { name, component: text, ..DraftType::default() });
                seen.push(Some(inspection));
            }
            Err(why) => draft.tail.push(format!("Left out: {text} {why}")),
        }
    }
    if found.cut {
        draft.tail.push(format!(
            "Not everything below this folder was looked at: at most {COMPONENTS_MAX} components are taken, and six levels of folders."
        ));
    }
    draft.head = vec![
        "Written by `wasmhost init`: the components that it found, each with what calls it by its exports."
            .to_owned(),
        "Nothing of this machine is granted yet (env, dirs, outbound): docs/formation.md has all keys."
            .to_owned(),
    ];
    (draft, seen)
}

/// The component, if it can be called, or what is to be told of it.
fn look(path: &Path) -> Result<Inspection, String> {
    let bytes = read_file(path, FILE_BYTES_MAX).map_err(|err| format!("can't be read: {err}"))?;
    let seen =
        inspect(&bytes.ok_or("is larger than any component may be")?).map_err(|err| err.to_string())?;
    match (seen.handlers.is_empty(), seen.refusal()) {
        (true, _) => Err(format!("exports {}, and wasmhost calls nothing of that", seen.shown_exports())),
        (false, Some(refusal)) => Err(refusal),
        (false, None) => Ok(seen),
    }
}

/// A name for the type of this file, which no other has.
fn name(path: &Path, names: &mut BTreeSet<String>) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let fit: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let fit = fit.trim_matches('-');
    let fit = &fit[..fit.len().min(50)];
    let fit = match name_problem(fit) {
        None => fit.to_owned(),
        Some(_) => format!("app-{fit}").trim_end_matches('-').to_owned(),
    };
    let numbered = (2..).map(|number| format!("{fit}-{number}"));
    let name = std::iter::once(fit.clone()).chain(numbered).find(|name| !names.contains(name)).unwrap_or(fit);
    names.insert(name.clone());
    name
}

fn nothing(folder: &Path, draft: &Draft) -> Failed {
    let mut message = match draft.tail.is_empty() {
        true => format!("found no .wasm file in {} or below it", folder.display()),
        false => format!("found no component that can be called in {} or below it", folder.display()),
    };
    for line in &draft.tail {
        message += &format!("\n  {}", shown::one_line(line, shown::MESSAGE_BYTES_MAX));
    }
    message += "\nbuild one, such as by `cargo build --release --target wasm32-wasip2`, and call `wasmhost init` again";
    Failed::new(Exit::Component, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_gets_a_name_that_a_formation_takes() {
        let mut names = BTreeSet::new();
        for (file, expected) in [
            ("web.wasm", "web"),
            ("sub/web.wasm", "web-2"),
            ("My_App.v2.wasm", "my-app-v2"),
            ("2nd.wasm", "app-2nd"),
            ("ü.wasm", "app"),
            ("--.wasm", "app-2"),
        ] {
            assert_eq!(name(Path::new(file), &mut names), expected, "{file}");
        }
        let long = name(Path::new(&format!("{}.wasm", "x".repeat(200))), &mut names);
        assert!(name_problem(&long).is_none(), "{long}");
    }
}
