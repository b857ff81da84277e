//! The languages of projects, and the kinds of their one process type.

use clap::ValueEnum;

use super::tools::{self, ADD_TARGET, RustTools};

/// A project's language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    Rust,
    #[value(alias = "ts")]
    Typescript,
    Python,
    Go,
    C,
}

/// The caller of the project's process type, by the type's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Requests.
    Web,
    /// Jobs of the queue `default`.
    Worker,
    /// Each minute.
    Clock,
}

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Web => "web",
            Kind::Worker => "worker",
            Kind::Clock => "clock",
        }
    }

    /// The keys of the formation that say what calls it.
    pub(super) fn trigger(self) -> &'static str {
        match self {
            Kind::Web => "route = \"/\"",
            Kind::Worker => "queue = \"default\"",
            Kind::Clock => "schedule = \"* * * * *\"    # each minute",
        }
    }

    /// The line to type to see it work, while it runs.
    pub(super) fn to_try(self) -> &'static str {
        match self {
            Kind::Web => "curl 'http://127.0.0.1:8080/?name=Ada'",
            Kind::Worker => "wasmhost enqueue default Ada",
            Kind::Clock => "wasmhost tick clock",
        }
    }
}

impl Language {
    /// As its users write it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Language::Rust => "Rust",
            Language::Typescript => "TypeScript",
            Language::Python => "Python",
            Language::Go => "Go",
            Language::C => "C",
        }
    }

    /// Its folder of templates.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::Typescript => "typescript",
            Language::Python => "python",
            Language::Go => "go",
            Language::C => "c",
        }
    }

    /// Where a person begins to read.
    pub(super) fn source(self, kind: Kind) -> String {
        let kind = kind.word();
        match self {
            Language::Rust => "src/lib.rs".to_owned(),
            Language::Typescript => format!("src/{kind}.ts"),
            Language::Python => format!("{kind}.py"),
            Language::Go => "main.go".to_owned(),
            Language::C => "src/main.c".to_owned(),
        }
    }

    /// The command that runs the project's tests.
    pub(super) fn test(self) -> &'static str {
        match self {
            Language::Rust => "cargo test",
            Language::Typescript => "npm test",
            Language::Python => "python3 -m unittest",
            Language::Go => "go test ./greeting",
            Language::C => "sh test.sh",
        }
    }

    /// The tools that have to be installed, in the README.
    pub(super) fn needs(self) -> &'static str {
        match self {
            Language::Rust => {
                "Rust is needed, with `rustup target add wasm32-wasip2`. The SDK is in `vendor/wasmhost`, as it was when \
                 `wasmhost new` wrote this: its documentation is `cargo doc --open -p wasmhost-guest`."
            }
            Language::Typescript => {
                "Node.js 20 or later is needed. The first build installs what `package.json` says."
            }
            Language::Python => {
                "Python 3.10 or later is needed, with `venv`. The first build installs `componentize-py` into `.venv`; \
                 modules are imported when the component is built."
            }
            Language::Go => "Go 1.24 or later is needed, and nothing beside it.",
            Language::C => {
                "A clang that builds for WebAssembly is needed: that of a \
                 [wasi-sdk](https://github.com/WebAssembly/wasi-sdk/releases), named by `WASI_SDK_PATH`, or Debian's, \
                 which `build.sh` finds."
            }
        }
    }

    /// A tool that it needs and this machine lacks, and the line that installs it.
    pub(super) fn missing(self) -> Option<String> {
        let program = match self {
            Language::Rust if !tools::runs("cargo", "--version") => "cargo",
            Language::Rust => {
                let lacks_target = RustTools::find() == RustTools::Target { installed: false };
                let first = match tools::runs("rustup", "--version") {
                    true => "",
                    false => "rustup is missing: `curl -sSf https://sh.rustup.rs | sh` installs it; then ",
                };
                return lacks_target
                    .then(|| format!("{first}`{ADD_TARGET}` installs the compiler's part for WebAssembly"));
            }
            Language::Typescript if !tools::runs("npm", "--version") => "npm",
            Language::Python if !tools::runs("python3", "--version") => "python3",
            Language::Go if !tools::runs("go", "version") => "go",
            Language::C if !has_sdk() && !tools::has_clang() => "clang",
            _ => return None,
        };
        let line = tools::install_line(program).unwrap_or("install it");
        Some(format!("{program} is missing: {line}"))
    }
}

/// Whether a wasi-sdk is named. An empty variable is as good as none.
fn has_sdk() -> bool {
    std::env::var_os("WASI_SDK_PATH").is_some_and(|path| !path.is_empty())
}
