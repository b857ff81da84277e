//! The files of a project: templates with its name in them, and files of the repository as they are.

use std::path::PathBuf;

use super::embedded;
use super::language::{Kind, Language};
use super::tools::RustTools;

/// A project that is to be written.
pub(super) struct Project {
    pub(super) name: String,
    pub(super) language: Language,
    pub(super) kind: Kind,
}

/// One file of it.
pub(super) struct ProjectFile {
    /// In the project's folder.
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
    pub(super) is_script: bool,
}

const TEMPLATES: &str = "crates/cli/templates/";

/// An ending of templates whose own name would mean something in this repository.
const DISGUISE: &str = ".in";

/// Interfaces of WASI and wasmhost, in a project that is built by them.
const WIT: &[(&str, &str)] = &[("wit/deps/", "wit/deps/"), ("wit/clock/", "wit/deps/clock/")];

impl Project {
    /// Its files, and the tool that this machine lacks for it.
    pub(super) fn files(&self) -> (Vec<ProjectFile>, Option<String>) {
        let mut files = Vec::new();
        let language = self.language.folder();
        self.add_templates(&mut files, &format!("{TEMPLATES}{language}/all/"));
        self.add_templates(&mut files, &format!("{TEMPLATES}{language}/{}/", self.kind.word()));
        let debians = self.language == Language::Rust && RustTools::find() == RustTools::Debian;
        if debians {
            self.add_templates(&mut files, &format!("{TEMPLATES}{language}/debian/"));
        }
        for (from, to) in self.taken_along() {
            files.extend(embedded::below(from).map(|(rest, bytes)| ProjectFile {
                path: format!("{to}{rest}").into(),
                bytes: bytes.to_owned(),
                is_script: false,
            }));
        }
        // Lock files name the package that they are for.
        if let Some((from, to, named)) = self.lock_file() {
            files.extend(embedded::below(from).map(|(_, text)| {
                let text = String::from_utf8_lossy(text).replace(named, &format!("\"{}\"", self.name));
                let text = if self.language == Language::Rust { in_cargos_order(&text) } else { text };
                self.text(to, &text)
            }));
        }
        let readme =
            embedded::below(&format!("{TEMPLATES}README.md.in")).next().map_or(&b""[..], |(_, text)| text);
        files.push(self.text("README.md", &self.filled(&String::from_utf8_lossy(readme))));
        files.push(self.text("formation.toml", &self.formation(debians)));
        (files, self.language.missing())
    }

    fn formation(&self, debians: bool) -> String {
        let Project { name, kind, .. } = self;
        let listen = if *kind == Kind::Web { "\n[http]\nlisten = \"127.0.0.1:8080\"\n" } else { "" };
        let (component, build) = self.build(debians);
        let mut text = format!(
            "# docs/formation.md of wasmhost has all keys. Nothing of this machine is granted yet (env, dirs, outbound).\n\
             name = \"{name}\"\n{listen}\n[process.{}]\ncomponent = \"{component}\"\nbuild = \"{build}\"\n{}\n",
            kind.word(),
            kind.trigger()
        );
        if self.language == Language::Typescript {
            text.push_str("# The garbage collector takes its time.\nmemory = \"256MiB\"\n");
        }
        text
    }

    /// The component, and the command that makes it.
    fn build(&self, debians: bool) -> (String, &'static str) {
        let kind = self.kind.word();
        match self.language {
            Language::Rust if debians => (format!("{}.wasm", self.name), "sh build.sh"),
            Language::Rust => (
                format!("target/wasm32-wasip2/release/{}.wasm", self.ident()),
                "cargo build --release --target wasm32-wasip2",
            ),
            Language::Typescript => (
                format!("{kind}.wasm"),
                "test -d node_modules || npm install --no-audit --no-fund && npm run --silent build",
            ),
            Language::Python | Language::Go | Language::C => (format!("{kind}.wasm"), "sh build.sh"),
        }
    }

    /// Files of the repository that are written as they are: what their paths begin with, here and in the project.
    fn taken_along(&self) -> Vec<(&'static str, &'static str)> {
        let is_web = self.kind == Kind::Web;
        let mut taken: Vec<(&str, &str)> = match self.language {
            Language::Rust => vec![
                ("LICENSE", "vendor/wasmhost/LICENSE"),
                ("crates/guest/", "vendor/wasmhost/crates/guest/"),
                ("wit/job/", "vendor/wasmhost/wit/job/"),
                ("wit/clock/", "vendor/wasmhost/wit/clock/"),
            ],
            Language::Typescript => vec![("examples/typescript/tsconfig.json", "tsconfig.json")],
            Language::Python => vec![("examples/python/requirements.txt", "requirements.txt")],
            Language::Go if is_web => vec![("examples/go/wasihttp/", "wasihttp/")],
            Language::C if is_web => vec![("examples/c/bindings/", "bindings/")],
            Language::Go | Language::C => Vec::new(),
        };
        match (self.language, self.kind) {
            (Language::Typescript, Kind::Web) => {
                taken.push(("examples/typescript/src/wasi-http", "src/wasi-http"));
            }
            (Language::Typescript, Kind::Worker) => {
                taken.push(("examples/typescript/src/wasmhost-", "src/wasmhost-"));
            }
            (Language::Python, Kind::Web) => taken.push(("examples/python/wasi_http.py", "wasi_http.py")),
            (Language::Python, Kind::Worker) => {
                taken.push(("examples/python/wasmhost_job.py", "wasmhost_job.py"));
            }
            _ => {}
        }
        let has_world = match self.language {
            Language::Typescript | Language::Python => true,
            Language::Go => is_web,
            // The SDK has its own, and the bindings in C are made already.
            Language::Rust | Language::C => false,
        };
        if has_world {
            taken.extend(WIT);
        }
        taken
    }

    /// The lock file of the example that has the same dependencies: from where, to where, and its package's name.
    fn lock_file(&self) -> Option<(&'static str, &'static str, &'static str)> {
        match self.language {
            Language::Rust => Some(("examples/hello/Cargo.lock", "Cargo.lock", "\"hello\"")),
            Language::Typescript => {
                Some(("examples/typescript/package-lock.json", "package-lock.json", "\"typescript-example\""))
            }
            Language::Python | Language::Go | Language::C => None,
        }
    }

    fn add_templates(&self, files: &mut Vec<ProjectFile>, folder: &str) {
        for (path, bytes) in embedded::below(folder) {
            let path = path.strip_suffix(DISGUISE).unwrap_or(path);
            files.push(self.text(path, &self.filled(&String::from_utf8_lossy(bytes))));
        }
    }

    fn text(&self, path: &str, text: &str) -> ProjectFile {
        ProjectFile { path: path.into(), bytes: text.as_bytes().to_owned(), is_script: path.ends_with(".sh") }
    }

    /// A template's text with this project in it.
    fn filled(&self, template: &str) -> String {
        let Project { name, language, kind } = self;
        template
            .replace("{{name}}", name)
            .replace("{{ident}}", &self.ident())
            .replace("{{type}}", kind.word())
            .replace("{{language}}", language.word())
            .replace("{{try}}", kind.to_try())
            .replace("{{source}}", &format!("[{0}]({0})", language.source(*kind)))
            .replace("{{test}}", language.test())
            .replace("{{needs}}", language.needs())
            .replace("{{compile}}", self.compile())
    }

    /// The lines of `build.sh` that compile.
    fn compile(&self) -> &'static str {
        let kind = self.kind;
        match self.language {
            Language::C => match kind {
                Kind::Web => {
                    "$cc -mexec-model=reactor -Ibindings -Isrc src/*.c bindings/web.c bindings/web_component_type.o -o build/core.wasm\n\
                     \"${WASMHOST:-wasmhost}\" componentize build/core.wasm -o web.wasm"
                }
                Kind::Worker => "$cc -Isrc src/*.c -o worker.wasm",
                Kind::Clock => "$cc -Isrc src/*.c -o clock.wasm",
            },
            Language::Go => match kind {
                Kind::Web => {
                    "core=$(mktemp)\n\
                     trap 'rm -f \"$core\"' EXIT\n\
                     go build -trimpath -buildmode=c-shared -ldflags='-s -w' -o \"$core\" .\n\
                     \"${WASMHOST:-wasmhost}\" componentize \"$core\" --wit wit --world web -o web.wasm"
                }
                Kind::Worker => "go build -trimpath -ldflags='-s -w' -o worker.wasm .",
                Kind::Clock => "go build -trimpath -ldflags='-s -w' -o clock.wasm .",
            },
            Language::Rust | Language::Typescript | Language::Python => "",
        }
    }

    /// The name as compilers write it.
    fn ident(&self) -> String {
        self.name.replace('-', "_")
    }
}

/// A `Cargo.lock` whose packages are sorted: cargo would write it anew otherwise.
fn in_cargos_order(text: &str) -> String {
    const BEGIN: &str = "[[package]]\n";
    let mut parts = text.split(BEGIN).map(|part| part.trim_end_matches('\n'));
    let head = parts.next().unwrap_or_default();
    let mut packages: Vec<_> = parts.collect();
    packages.sort_unstable();
    let packages = packages.into_iter().map(|package| format!("\n\n{BEGIN}{package}"));
    format!("{head}{}\n", packages.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;
    use std::collections::BTreeSet;

    #[test]
    fn every_project_is_whole() {
        for language in Language::value_variants() {
            for kind in Kind::value_variants() {
                let project = Project { name: "shop-1".to_owned(), language: *language, kind: *kind };
                let (files, _) = project.files();
                let shown = format!("{language:?} {kind:?}");
                let paths: BTreeSet<_> = files.iter().map(|file| file.path.to_str().unwrap()).collect();
                assert_eq!(paths.len(), files.len(), "no file twice in {shown}: {paths:?}");
                for path in ["README.md", "formation.toml", ".gitignore", &project.language.source(*kind)] {
                    assert!(paths.contains(path), "{path} is in {shown}: {paths:?}");
                }
                for file in &files {
                    let text = String::from_utf8_lossy(&file.bytes);
                    assert!(!file.bytes.is_empty(), "{:?} of {shown}", file.path);
                    let is_open = text.contains("{{")
                        && !file.path.starts_with("vendor")
                        && !file.path.starts_with("bindings");
                    assert!(
                        !is_open || file.path.extension().is_some_and(|kind| kind == "go"),
                        "{:?} of {shown}",
                        file.path
                    );
                    assert!(!text.contains("workspace = true"), "{:?} of {shown}", file.path);
                }
            }
        }
    }
}
