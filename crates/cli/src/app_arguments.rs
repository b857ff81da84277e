//! Whose the arguments behind `run app.wasm` are. As for `wasmtime run`, the first one that is no option of this program's
//! begins the app's own, `--help` and `--version` included. One that is spelt almost as an option of this program's is
//! taken for a typing error, unless `--` is before it.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Arg, Command, CommandFactory};
use wasmhost_config::nearest;

use crate::app::is_app;
use crate::args::{AppFlags, Arguments};

const VERB: &str = "run";

/// The command line, with `--` before the app's own arguments, where an app is run.
pub(crate) fn part(line: Vec<OsString>) -> Vec<OsString> {
    part_for(line, is_app)
}

fn part_for(mut line: Vec<OsString>, is_app: impl Fn(&Path) -> bool) -> Vec<OsString> {
    if let Some(at) = begin_of_its_own(&line, is_app) {
        line.insert(at, "--".into());
    }
    line
}

/// Where the app's own arguments begin, unless clap knows it as well.
fn begin_of_its_own(line: &[OsString], is_app: impl Fn(&Path) -> bool) -> Option<usize> {
    let program = Arguments::command();
    let run = program.find_subcommand(VERB)?;
    let mut words = Words { line, at: 1 };
    if words.next_that_is_no_option(&[&program])? != VERB {
        return None;
    }
    let file = words.next_that_is_no_option(&[&program, run])?;
    if !is_app(Path::new(file)) {
        return None;
    }
    // Options that aren't the app's flags, as `--file`, have no meaning behind the app.
    let flags = <AppFlags as clap::Args>::augment_args(Command::new(VERB));
    words.skip_options(&[&flags]);
    let next = line.get(words.at)?;
    let is_its_own = next != "--" && is_option(next) && !is_misspelt(next, &flags);
    is_its_own.then_some(words.at)
}

/// Whether a word is almost one of these options.
fn is_misspelt(word: &OsStr, flags: &Command) -> bool {
    let word = word.to_string_lossy();
    let Some(long) = word.strip_prefix("--") else { return false };
    let name = long.split('=').next().unwrap_or(long);
    nearest(name, flags.get_arguments().filter_map(Arg::get_long)).is_some()
}

/// A command line that is read word by word.
struct Words<'a> {
    line: &'a [OsString],
    at: usize,
}

impl<'a> Words<'a> {
    fn next_that_is_no_option(&mut self, commands: &[&Command]) -> Option<&'a OsStr> {
        self.skip_options(commands);
        let word = self.line.get(self.at)?;
        self.at += 1;
        (!is_option(word)).then_some(word)
    }

    /// Skips the options of these commands, and their values.
    fn skip_options(&mut self, commands: &[&Command]) {
        while let Some(words) = self.line.get(self.at).and_then(|word| words_of_option(word, commands)) {
            self.at += words;
        }
    }
}

fn is_option(word: &OsStr) -> bool {
    word.as_encoded_bytes().starts_with(b"-") && word != "-"
}

/// How many words an option has; nothing, if it is none of these commands'.
fn words_of_option(word: &OsStr, commands: &[&Command]) -> Option<usize> {
    let word = word.to_string_lossy();
    let (option, value_follows) = match word.strip_prefix("--") {
        Some(long) => {
            let name = long.split('=').next().unwrap_or(long);
            (find(commands, |option| option.get_long() == Some(name))?, !long.contains('='))
        }
        None => {
            let mut letters = word.strip_prefix('-')?.chars();
            let letter = letters.next()?;
            (find(commands, |option| option.get_short() == Some(letter))?, letters.next().is_none())
        }
    };
    let takes_value = option.get_action().takes_values();
    Some(if takes_value && value_follows { 2 } else { 1 })
}

fn find<'a>(commands: &[&'a Command], is_it: impl Fn(&Arg) -> bool) -> Option<&'a Arg> {
    commands.iter().flat_map(|command| command.get_arguments()).find(|option| is_it(option))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is(line: &str, parted: &str) {
        let words = line.split(' ').map(OsString::from).collect();
        let words = part_for(words, |file| file.extension().is_some_and(|kind| kind == "wasm"));
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        assert_eq!(words.join(" "), parted);
    }

    #[test]
    fn the_first_option_that_is_not_ours_begins_the_apps_own() {
        is("wasmhost run a.wasm --help", "wasmhost run a.wasm -- --help");
        is("wasmhost run a.wasm -h", "wasmhost run a.wasm -- -h");
        is("wasmhost run a.wasm --version --env A=1", "wasmhost run a.wasm -- --version --env A=1");
        is("wasmhost run a.wasm -f x", "wasmhost run a.wasm -- -f x");
        is("wasmhost run a.wasm --dir . --env A=1 -v x", "wasmhost run a.wasm --dir . --env A=1 -- -v x");
        is(
            "wasmhost run --dir . a.wasm --dir=. --network -v",
            "wasmhost run --dir . a.wasm --dir=. --network -- -v",
        );
        is("wasmhost run --env --help a.wasm -v", "wasmhost run --env --help a.wasm -- -v");
        is("wasmhost -f x run a.wasm -v", "wasmhost -f x run a.wasm -- -v");
    }

    #[test]
    fn all_else_is_left_as_it_is() {
        for line in [
            "wasmhost",
            "wasmhost --help",
            "wasmhost run",
            "wasmhost run --help",
            "wasmhost run --help a.wasm",
            "wasmhost run --unknown a.wasm -v",
            "wasmhost run a.toml --help",
            "wasmhost run a.wasm",
            "wasmhost run a.wasm --dir",
            "wasmhost run a.wasm --netwrok",
            "wasmhost run a.wasm --timeuot=1s x",
            "wasmhost run a.wasm x --help",
            "wasmhost run a.wasm - --help",
            "wasmhost run a.wasm --dir . -- --help",
            "wasmhost check a.wasm --help",
            "wasmhost -fx ps --help",
            "wasmhost -- run a.wasm",
        ] {
            is(line, line);
        }
    }
}
