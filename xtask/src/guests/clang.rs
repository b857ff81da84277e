//! Finding C compilers that build for WebAssembly.
//!
//! Names of targets and places of libraries move from version to version (`wasm32-wasi` became `wasm32-wasip1`), so
//! nothing is concluded from a version: a compiler is taken if it compiles and links a small program. Each is tried by
//! all [`WAYS`] to call it, the newest compiler first.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result};

use super::apt;
use super::tools::Missing;

/// Ways to call a compiler, from what new ones want to what old ones know.
const WAYS: [&[&str]; 4] = [
    &["--target=wasm32-wasip1"],
    // Newer compilers warn that this is the old name.
    &["--target=wasm32-wasi", "-Wno-deprecated"],
    // The new name with a C library that is still in folders of the old one, as Debian's is.
    &[
        "--target=wasm32-wasip1",
        "-nostdlibinc",
        "-isystem/usr/include/wasm32-wasi",
        "-B/usr/lib/wasm32-wasi",
        "-L/usr/lib/wasm32-wasi",
    ],
    // Where other distributions have it.
    &["--target=wasm32-wasip1", "--sysroot=/usr/share/wasi-sysroot"],
];

/// The flags of every guest.
pub(super) const FLAGS: [&str; 3] = ["-mexec-model=reactor", "-O2", "-flto"];

/// It wants the C library's headers, the library, the compiler's own (for a division of 128 bits) and a linker.
const PROBE: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
__attribute__((export_name("probe"))) unsigned long long probe(const char *text, unsigned long long n) {
  printf("%s %llu\n", text, n);
  char *copy = strdup(text);
  unsigned __int128 wide = (unsigned __int128)strlen(copy) << 70;
  free(copy);
  return (unsigned long long)(wide / n);
}
"#;

/// Debian's compilers that are installed for this: the newest, and older ones where that one can't build.
const INSTALLED_MAX: usize = 3;

/// A compiler, and how it is called.
pub(super) struct Clang {
    program: PathBuf,
    way: &'static [&'static str],
}

impl Clang {
    /// A call with [`FLAGS`] and what this compiler needs.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.way).args(FLAGS);
        command
    }

    pub(super) fn name(&self) -> String {
        format!("{} {}", self.program.display(), self.way[0])
    }

    /// This compiler, if it builds a small program in any way; if not, what it said to the last one.
    fn probe(program: PathBuf, folder: &Path) -> Result<Clang, String> {
        let source = folder.join("probe.c");
        let mut refused = String::new();
        for way in WAYS {
            let clang = Clang { program: program.clone(), way };
            match fs::write(&source, PROBE).and_then(|()| clang.try_build(&source)) {
                Ok(built) if built.status.success() => return Ok(clang),
                Ok(built) => refused = format!("{}: {}", clang.name(), reason(&built)),
                Err(error) => return Err(format!("{}: {error}", program.display())),
            }
        }
        Err(refused)
    }

    fn try_build(&self, source: &Path) -> std::io::Result<Output> {
        let built = source.with_extension("wasm");
        self.command().arg(source).arg("-o").arg(built).stdin(Stdio::null()).output()
    }
}

/// The compilers of this machine that can build, one after the other: the next is looked for, or installed, only where
/// the one before it didn't do. `refused` collects why others can't.
pub(super) fn compilers<'a>(
    target_folder: &'a Path,
    refused: &'a mut Vec<String>,
) -> Result<impl Iterator<Item = Clang> + 'a> {
    let folder = target_folder.join("c-probe");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let found: Box<dyn Iterator<Item = PathBuf>> = match env::var_os("WASI_SDK_PATH") {
        // It was asked for by name: no other is taken in its place.
        Some(sdk) => Box::new([PathBuf::from(sdk).join("bin/clang")].into_iter()),
        None => Box::new(installed().into_iter().chain(installable())),
    };
    Ok(found.filter_map(move |program| Clang::probe(program, &folder).map_err(|why| refused.push(why)).ok()))
}

/// The error where there is no compiler at all.
pub(super) fn missing(refused: &[String]) -> anyhow::Error {
    let found = match refused {
        [] => "none was found".to_string(),
        refused => format!("these can't:\n    {}", refused.join("\n    ")),
    };
    let version = apt::newest(apt::LLD).map_or(String::new(), |version| format!("-{version}"));
    let packages = packages(&version).join(" ");
    Missing::error(format!(
        "expected a C compiler that builds for WebAssembly; {found}\nSet WASI_SDK_PATH to where a wasi-sdk is \
         unpacked; or on Debian, as root:\n\n    apt-get update\n    apt-get install --no-install-recommends {packages}"
    ))
}

/// `clang-N`, the newest first, and the `clang` on the path.
fn installed() -> Vec<PathBuf> {
    let programs = fs::read_dir("/usr/bin").into_iter().flatten().flatten();
    let names = programs.filter_map(|program| program.file_name().into_string().ok());
    let mut versions: Vec<u32> = names.filter_map(|name| apt::llvm_version(&name, "clang-")).collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    let mut found: Vec<PathBuf> = versions.into_iter().map(versioned).collect();
    found.extend(on_path());
    found
}

fn on_path() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join("clang")).find(|file| file.is_file())
}

fn versioned(version: u32) -> PathBuf {
    PathBuf::from(format!("/usr/bin/clang-{version}"))
}

/// Compilers that can be installed, the newest first. Each is installed as it is asked for.
fn installable() -> impl Iterator<Item = PathBuf> {
    let versions = std::iter::once_with(|| match apt::can_install() {
        true => {
            apt::update();
            apt::versions(apt::LLD)
        }
        false => Vec::new(),
    });
    let installed = versions.flatten().take(INSTALLED_MAX).filter(|version| {
        let packages = packages(&format!("-{version}"));
        apt::install(&packages)
    });
    installed.map(versioned)
}

/// All of one version of LLVM, and the C library.
fn packages(version: &str) -> [String; 4] {
    [
        format!("clang{version}"),
        format!("lld{version}"),
        format!("libclang-rt{version}-dev-wasm32"),
        "wasi-libc".to_string(),
    ]
}

/// The line in which a compiler says what is wrong.
fn reason(failed: &Output) -> String {
    let said = String::from_utf8_lossy(&failed.stderr);
    let line = said.lines().find(|line| line.contains("error")).or_else(|| said.lines().last());
    line.map_or_else(|| failed.status.to_string(), |line| line.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A compiler that takes only calls with this in their arguments.
    fn compiler(folder: &Path, takes: &str) -> PathBuf {
        let program = folder.join("clang");
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in\n*'{takes}'*) exit 0 ;;\nesac\necho \"clang: error: unknown target\" >&2\nexit 1\n"
        );
        // Written by another process: a file that this one has open for writing while another test starts a program
        // can't be started itself.
        let write = r#"printf %s "$1" > "$0" && chmod 755 "$0""#;
        let written = Command::new("sh").args(["-c", write]).arg(&program).arg(script).status();
        assert!(written.unwrap().success());
        program
    }

    #[test]
    fn a_compiler_is_called_by_the_first_way_that_it_takes() {
        for (takes, way) in [
            ("--target=wasm32-wasip1", 0),
            ("--target=wasm32-wasi ", 1),
            ("-nostdlibinc", 2),
            ("--sysroot=/usr/share/wasi-sysroot", 3),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let clang = Clang::probe(compiler(folder.path(), takes), folder.path()).ok().unwrap();
            assert_eq!(clang.way, WAYS[way], "{takes}");
        }
    }

    #[test]
    fn a_compiler_that_takes_no_way_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let why = Clang::probe(compiler(folder.path(), "--target=riscv"), folder.path()).err().unwrap();
        assert!(why.ends_with("clang --target=wasm32-wasip1: clang: error: unknown target"), "{why}");
        let why = Clang::probe(folder.path().join("none"), folder.path()).err().unwrap();
        assert!(why.contains("none: No such file"), "{why}");
    }

    #[test]
    fn what_was_refused_is_named_in_the_error() {
        let error = missing(&["/usr/bin/clang-22 --target=x: error: y".to_string()]).to_string();
        assert!(
            error.starts_with("expected a C compiler that builds for WebAssembly; these can't:"),
            "{error}"
        );
        assert!(
            error.contains("clang-22 --target=x: error: y") && error.contains("WASI_SDK_PATH"),
            "{error}"
        );
        assert!(missing(&[]).to_string().contains("none was found"));
        assert!(missing(&[]).is::<Missing>());
    }
}
