//! `wasmhost import`: a Procfile -> the formation.toml that says the same.

use std::path::{Path, PathBuf};

use serde::Serialize;
use wasmhost_config::{Draft, Formation, LoadError, is_procfile, load, load_procfile, read_file};
use wasmhost_engine::{FILE_BYTES_MAX, Inspection, inspect};

use super::{counted, refuse_source, triggers, write_file};
use crate::args::setup::{Count, Import};
use crate::exit::{Exit, Failed, Outcome};
use crate::print;

/// `--json`
#[derive(Serialize)]
struct Imported<'a> {
    /// The file that was written; null where its text is printed.
    file: Option<&'a Path>,
    /// The process types' names.
    types: Vec<&'a str>,
    /// The formation, where it wasn't written.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

pub(crate) fn import(file: Option<PathBuf>, import: Import) -> Outcome {
    let procfile = import.procfile.or(file).unwrap_or_else(|| PathBuf::from("Procfile"));
    if !is_procfile(&procfile) {
        let message =
            format!("{}: expected a Procfile, whose name is Procfile or Procfile.NAME", procfile.display());
        return Err(Failed::new(Exit::Usage, message));
    }
    let wrong = |err: LoadError| Failed::new(Exit::Usage, err);
    let (formation, mut draft) = (load(&procfile).map_err(wrong)?, load_procfile(&procfile).map_err(wrong)?);
    let seen = seen(&formation);
    triggers::add(&mut draft.types, &seen);
    set_counts(&mut draft, &import.formation)?;
    for ((written, process), _) in
        draft.types.iter_mut().zip(&formation.processes).zip(&seen).filter(|(_, seen)| seen.is_none())
    {
        written.notes.push(format!(
            "{} can't be read yet: its exports say what calls it, or a key (route, queue, schedule, run)",
            process.component.display()
        ));
    }
    let shown = procfile.file_name().unwrap_or_default().to_string_lossy();
    draft.head = vec![
        format!("Written by `wasmhost import` from {shown}. docs/formation.md has all keys."),
        "Each type is granted the variables that it has below, and nothing else of this machine.".to_owned(),
    ];
    let text = draft.to_toml();
    let output = output(&procfile, import.output)?;
    if let Some(output) = &output {
        refuse_source(output, &formation)?;
        write_file(output, &text, import.force, "--force writes over it, and -o names another file")?;
    }
    if import.json {
        let types = draft.types.iter().map(|process| process.name.as_str()).collect();
        let text = output.is_none().then_some(text.as_str());
        print::json(&Imported { file: output.as_deref(), types, text })?;
        return Ok(Exit::Done);
    }
    let Some(output) = output else {
        print::text(&text);
        return Ok(Exit::Done);
    };
    let shown = output.display();
    print::line(format_args!(
        "wrote {shown} with {}; `wasmhost check` says what is understood, `wasmhost run` runs it",
        counted(draft.types.len(), "process type")
    ));
    Ok(Exit::Done)
}

/// Each component as far as it is there.
fn seen(formation: &Formation) -> Vec<Option<Inspection>> {
    let read = |path: &Path| read_file(path, FILE_BYTES_MAX).ok().flatten();
    formation.processes.iter().map(|process| inspect(&read(&process.component)?).ok()).collect()
}

fn set_counts(draft: &mut Draft, counts: &[Count]) -> Result<(), Failed> {
    for Count { name, count } in counts {
        let mut found = false;
        for process in draft.types.iter_mut().filter(|process| process.name == *name || name == "all") {
            process.count = (*count != 1).then_some(*count);
            found = true;
        }
        if !found {
            let names: Vec<_> = draft.types.iter().map(|process| process.name.as_str()).collect();
            let message = format!("--formation {name}={count}: no such type; there are {}", names.join(", "));
            return Err(Failed::new(Exit::Usage, message));
        }
    }
    Ok(())
}

/// Where the formation is written; none where it is printed. Paths in it, and `.env`, begin at its folder.
fn output(procfile: &Path, output: Option<PathBuf>) -> Result<Option<PathBuf>, Failed> {
    let Some(output) = output else { return Ok(Some(procfile.with_file_name("formation.toml"))) };
    if output == Path::new("-") {
        return Ok(None);
    }
    let folder = |file: &Path| {
        let absolute = std::path::absolute(file)?;
        std::fs::canonicalize(absolute.parent().unwrap_or(Path::new("/")))
    };
    let is_beside = matches!((folder(&output), folder(procfile)), (Ok(one), Ok(other)) if one == other);
    match is_beside {
        true => Ok(Some(output)),
        false => Err(Failed::new(
            Exit::Usage,
            format!(
                "-o {}: expected a file in the folder of {}, where its components and .env are",
                output.display(),
                procfile.display()
            ),
        )),
    }
}
