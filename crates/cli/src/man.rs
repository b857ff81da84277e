//! `wasmhost man`: the man pages, one for each verb, made of what `--help` says.

use std::fs;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::exit::{Exit, Failed, Outcome};
use crate::print;

pub(crate) fn man(command: Command, directory: &Path) -> Outcome {
    let cannot = |err| Failed::new(Exit::Failed, format!("can't write to {}: {err}", directory.display()));
    fs::create_dir_all(directory).map_err(cannot)?;
    let mut command = command.disable_help_subcommand(true);
    command.build();
    write(&command, directory).map_err(cannot)
}

/// The page of a verb, and those of the verbs below it.
fn write(command: &Command, directory: &Path) -> std::io::Result<Exit> {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        write(verb, directory)?;
    }
    let version = command.get_version().unwrap_or_default();
    let man = Man::new(command.clone()).source(format!("wasmhost {version}")).manual("wasmhost");
    let file = directory.join(man.get_filename());
    fs::write(&file, page(&man, command)?)?;
    print::line(file.display());
    Ok(Exit::Done)
}

fn page(man: &Man, command: &Command) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut page)?;
    }
    if command.get_subcommands().any(|verb| !verb.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    below(&help).to_writer(&mut page)?;
    Ok(page)
}

/// The text below the options: examples, whose lines stay, and notes, a paragraph each.
fn below(help: &str) -> Roff {
    let mut roff = Roff::new();
    let mut has_notes = false;
    for paragraph in help.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        let examples = paragraph.strip_prefix("Examples:\n").or_else(|| paragraph.strip_prefix("Example:\n"));
        if let Some(examples) = examples {
            roff.control("SH", ["EXAMPLES"]).control("nf", []);
            for line in examples.lines() {
                roff.text([roman(line.trim_start())]);
            }
            roff.control("fi", []);
            continue;
        }
        if !std::mem::replace(&mut has_notes, true) {
            roff.control("SH", ["NOTES"]);
        }
        roff.control("PP", []).text([roman(paragraph.replace('\n', " "))]);
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_keep_their_lines_and_notes_are_paragraphs() {
        let page = below("Examples:\n  wasmhost a\n  wasmhost b    why\n\nOne\nnote.\n\nAnother.").to_roff();
        let examples = ".SH EXAMPLES\n.nf\nwasmhost a\nwasmhost b    why\n.fi\n";
        assert!(page.contains(examples), "{page}");
        assert!(page.ends_with(".SH NOTES\n.PP\nOne note.\n.PP\nAnother.\n"), "{page}");
    }
}
