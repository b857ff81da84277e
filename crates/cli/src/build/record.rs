//! The record of what the last builds were made of: `builds.json` in the state directory. Without it everything is built again.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Build, Built, file_digest};

/// A record of thousands of types is far below this.
const BYTES_MAX: u64 = 4 << 20;

/// See the module.
pub(super) struct Record {
    file: PathBuf,
    builds: BTreeMap<String, Made>,
}

/// A component, and where it came from.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Made {
    command: String,
    /// Digests.
    sources: String,
    component: String,
}

impl Record {
    pub(super) fn read(state_dir: &Path) -> Record {
        let file = state_dir.join("builds.json");
        let text = wasmhost_config::read_file(&file, BYTES_MAX).ok().flatten();
        // One that can't be read is as good as none.
        let builds = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Record { file, builds }
    }

    /// Whether the type's component is what this command made of these sources.
    pub(super) fn is_of(&self, built: &Built, command: &str, sources: &str) -> bool {
        let known = self.builds.get(&built.name);
        known.is_some_and(|made| {
            made.command == command
                && made.sources == sources
                && file_digest(&built.component).as_ref() == Some(&made.component)
        })
    }

    /// Notes what was built. Where that can't be written, it is built again the next time.
    pub(super) fn keep(&mut self, build: &Build, sources: &str) {
        for built in &build.types {
            let Some(component) = file_digest(&built.component) else { continue };
            let made = Made { command: build.command.clone(), sources: sources.to_owned(), component };
            self.builds.insert(built.name.clone(), made);
        }
        let _ = self.write();
    }

    fn write(&self) -> std::io::Result<()> {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        if !folder.exists() {
            // As the host makes it.
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut beside = tempfile::Builder::new().prefix("builds-").tempfile_in(folder)?;
        beside.write_all(&serde_json::to_vec(&self.builds)?)?;
        beside.persist(&self.file).map(drop).map_err(|err| err.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_component_is_known_by_its_command_its_sources_and_itself() {
        let folder = tempfile::tempdir().unwrap();
        let component = folder.path().join("web.wasm");
        fs::write(&component, "1").unwrap();
        let built = Built { name: "web".into(), component: component.clone() };
        let build = Build { command: "make".into(), types: vec![built.clone()] };
        let state_dir = folder.path().join("state");
        let mut record = Record::read(&state_dir);
        assert!(!record.is_of(&built, "make", "abc"));
        record.keep(&build, "abc");
        let record = Record::read(&state_dir);
        assert!(record.is_of(&built, "make", "abc"));
        assert!(!record.is_of(&built, "make all", "abc") && !record.is_of(&built, "make", "abd"));
        fs::write(&component, "2").unwrap();
        assert!(!record.is_of(&built, "make", "abc"));
        fs::write(state_dir.join("builds.json"), "{").unwrap();
        assert!(Record::read(&state_dir).builds.is_empty());
    }
}
