//! `wasmhost export`: a formation -> what other tools read.

use crate::args::setup::{Export, ExportTo, ToProcfile};
use crate::exit::{Exit, Outcome};
use crate::formation_file::FormationFile;
use crate::print;

use super::{systemd, write_file};

pub(crate) fn export(file: FormationFile, export: Export) -> Outcome {
    match export.to {
        ExportTo::Systemd(to) => systemd::export(&file, &to),
        ExportTo::Procfile(to) => procfile(&file, to),
    }
}

/// The Procfile is the answer, and what it can't say is told beside it.
fn procfile(file: &FormationFile, to: ToProcfile) -> Outcome {
    let procfile = file.read()?.to_procfile();
    match &to.output {
        None => print::text(&procfile.text),
        Some(output) => {
            write_file(
                output,
                &procfile.text,
                to.force,
                "--force writes over it, and -o names another file",
            )?;
            print::line(format_args!("wrote {}", output.display()));
        }
    }
    if !procfile.left_out.is_empty() {
        print::note("a Procfile can't say these, and has the defaults instead:");
    }
    for left_out in procfile.left_out {
        print::note(format_args!("  {left_out}"));
    }
    Ok(Exit::Done)
}
