//! `wasmhost export`: a formation -> what other tools read.

use std::path::Path;

use serde::Serialize;

use crate::args::setup::{Export, ExportTo, ToProcfile};
use crate::exit::{Exit, Outcome};
use crate::formation_file::FormationFile;
use crate::print;

use super::{refuse_source, systemd, write_file};

/// `--json` of a Procfile.
#[derive(Serialize)]
struct Exported<'a> {
    /// The file that was written; null where its text is printed.
    file: Option<&'a Path>,
    /// The Procfile, where it wasn't written.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    /// Things that a Procfile can't say, for a person.
    left_out: &'a [String],
}

pub(crate) fn export(file: FormationFile, export: Export) -> Outcome {
    match export.to {
        ExportTo::Systemd(to) => systemd::export(&file, &to),
        ExportTo::Procfile(to) => procfile(&file, to),
    }
}

/// The Procfile is the answer, and what it can't say is told beside it.
fn procfile(file: &FormationFile, to: ToProcfile) -> Outcome {
    let formation = file.read()?;
    let procfile = formation.to_procfile();
    if let Some(output) = &to.output {
        refuse_source(output, &formation)?;
        let instead = "--force writes over it, and -o names another file";
        write_file(output, &procfile.text, to.force, instead)?;
    }
    if to.json {
        let text = to.output.is_none().then_some(procfile.text.as_str());
        print::json(&Exported { file: to.output.as_deref(), text, left_out: &procfile.left_out })?;
        return Ok(Exit::Done);
    }
    match &to.output {
        None => print::text(&procfile.text),
        Some(output) => print::line(format_args!("wrote {}", output.display())),
    }
    if !procfile.left_out.is_empty() {
        print::note("a Procfile can't say these, and has the defaults instead:");
    }
    for left_out in procfile.left_out {
        print::note(format_args!("  {left_out}"));
    }
    Ok(Exit::Done)
}
