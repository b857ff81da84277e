//! A tool that a failed build lacks, and the line that installs it.

use std::path::Path;

use crate::new::tools;

/// The code by which a shell says that there is no such program.
const NO_PROGRAM: i32 = 127;

/// The advice, if the command's end or its last lines say what is missing.
pub(super) fn find(command: &str, code: Option<i32>, last: &[String]) -> Option<String> {
    let says = |text: &str| last.iter().any(|line| line.contains(text));
    // Both compilers and cargo word it so where a target's standard library isn't installed.
    if says("target may not be installed") || says("can't find crate for `core`") {
        let target = ["wasm32-wasip2", "wasm32-wasip1", "wasm32-unknown-unknown"];
        let target = target.into_iter().find(|target| command.contains(target)).unwrap_or(target[0]);
        return Some(format!("install the compiler's part for it: `rustup target add {target}`"));
    }
    if code != Some(NO_PROGRAM) {
        return None;
    }
    // `sh: 1: cargo: not found`, `sh: cargo: command not found`
    let program = last.iter().rev().find_map(|line| {
        let line = line.trim_end();
        let before = line.strip_suffix(": not found").or_else(|| line.strip_suffix(": command not found"))?;
        before.rsplit(' ').next()
    });
    let program = program.or_else(|| command.split_whitespace().next())?;
    let program = Path::new(program).file_name()?.to_str()?;
    Some(match tools::install_line(program) {
        Some(line) => format!("{program} is missing: {line}"),
        None => format!("{program} is missing: install it, or correct `build`"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(command: &str, code: i32, last: &str) -> Option<String> {
        find(command, Some(code), &last.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_missing_target_and_a_missing_program_have_their_lines() {
        let said = "error[E0463]: can't find crate for `core`\n  |\n  = note: the `wasm32-wasip2` target may not be installed";
        let found = hint("cargo build --release --target wasm32-wasip2", 101, said).unwrap();
        assert!(found.ends_with("`rustup target add wasm32-wasip2`"), "{found}");
        let found = hint("npm run build", 127, "sh: 1: npm: not found").unwrap();
        assert!(found.starts_with("npm is missing: ") && found.contains("apt-get install"), "{found}");
        let found = hint("sh build.sh", 127, "build.sh: line 3: go: command not found").unwrap();
        assert!(found.starts_with("go is missing: "), "{found}");
        let found = hint("./mk -j2", 127, "").unwrap();
        assert_eq!(found, "mk is missing: install it, or correct `build`");
        assert_eq!(hint("cargo build", 101, "error: could not compile `shop`"), None);
    }
}
