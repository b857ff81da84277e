//! Which imports something here provides, by their names and versions, and why another isn't met.

use wasmhost_config::shown::{NAME_BYTES_MAX, one_line};

use super::{IMPORTED, Inspection, makers};

/// Interfaces that this engine provides, by the beginning of their names and versions.
const PROVIDED: [(&str, &str); 15] = [
    ("wasi:cli/", "0.2."),
    ("wasi:cli/", "0.3."),
    ("wasi:clocks/", "0.2."),
    ("wasi:clocks/", "0.3."),
    ("wasi:filesystem/", "0.2."),
    ("wasi:filesystem/", "0.3."),
    ("wasi:http/", "0.2."),
    ("wasi:http/", "0.3."),
    ("wasi:io/", "0.2."),
    ("wasi:random/", "0.2."),
    ("wasi:random/", "0.3."),
    ("wasi:sockets/", "0.2."),
    ("wasi:sockets/", "0.3."),
    ("wasmhost:clock/", "0.1."),
    ("wasmhost:job/", "0.1."),
];

/// The functions of WASI 0.1 (`wasi_snapshot_preview1`), from its specification.
const WASI_0_1: [&str; 46] = [
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "fd_write",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "proc_exit",
    "proc_raise",
    "random_get",
    "sched_yield",
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
];

/// The one that the version before it, `wasi_unstable`, lacks.
const ONLY_IN_0_1: &str = "sock_accept";

/// An import that nothing here provides.
#[derive(Debug, Clone, PartialEq, Eq)]
struct UnmetImport<'a> {
    /// As it is written in the file; a core module's as `MODULE NAME`.
    name: &'a str,
    /// The reason why it isn't met.
    why: Unmet,
}

/// Why an import isn't met.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Unmet {
    /// Nothing of this name exists here.
    Unknown,
    /// It is of a pre-release of what is provided in this version, such as `0.3.0`.
    PreRelease {
        /// The version that is provided.
        provided: String,
    },
}

impl UnmetImport<'_> {
    fn find(import: &str, is_core: bool) -> Option<UnmetImport<'_>> {
        let unmet = |why| Some(UnmetImport { name: import, why });
        if is_core {
            let known = import.split_once(' ').is_some_and(|(package, function)| {
                let is_older = package == IMPORTED[1];
                IMPORTED.contains(&package)
                    && WASI_0_1.contains(&function)
                    && !(is_older && function == ONLY_IN_0_1)
            });
            return if known { None } else { unmet(Unmet::Unknown) };
        }
        let Some((interface, version)) = import.split_once('@') else { return unmet(Unmet::Unknown) };
        let provided = PROVIDED
            .iter()
            .any(|(prefix, known)| interface.starts_with(prefix) && version.starts_with(known));
        match provided {
            false => unmet(Unmet::Unknown),
            true if is_pre_release(version) => {
                let provided = version.split('-').next().unwrap_or(version);
                let provided = one_line(provided, NAME_BYTES_MAX).into_owned();
                unmet(Unmet::PreRelease { provided })
            }
            true => None,
        }
    }
}

/// How many names a refusal lists.
const SHOWN_MAX: usize = 8;

impl Inspection {
    /// The names of what it exports, or "nothing", for a message.
    pub fn shown_exports(&self) -> String {
        match self.exports.is_empty() {
            true => "nothing".to_owned(),
            false => listed(self.exports.iter().map(String::as_str)),
        }
    }

    /// The text that follows the file's name where imports of it aren't met; `None` where all are.
    pub fn refusal(&self) -> Option<String> {
        let unmet: Vec<_> =
            self.imports.iter().filter_map(|import| UnmetImport::find(import, self.is_core)).collect();
        if unmet.is_empty() {
            return None;
        }
        let (early, unknown): (Vec<_>, Vec<_>) =
            unmet.iter().partition(|unmet| matches!(unmet.why, Unmet::PreRelease { .. }));
        let early = early.first().map(|first| {
            let Unmet::PreRelease { provided } = &first.why else { return String::new() };
            let (one, differs) = if early.len() == 1 { ("", "differs") } else { ("s", "differ") };
            format!(
                "is built for the pre-release{one} {}, which {differs} from {provided}: rebuild it with tools that make {provided}",
                listed(early.iter().map(|unmet| unmet.name))
            )
        });
        let unknown = (!unknown.is_empty()).then(|| {
            let provided = match self.is_core {
                true => "the functions of WASI 0.1 are",
                false => "WASI 0.2 and 0.3, and wasmhost:job/queue, are",
            };
            let advice = makers::advice(unknown.iter().map(|unmet| unmet.name));
            let advice = advice.map(|advice| format!("{advice}; ")).unwrap_or_default();
            format!(
                "imports {}, which nothing here provides ({provided}); {advice}should it never call them, `missing_imports = \"trap\"` lets it run",
                listed(unknown.iter().map(|unmet| unmet.name))
            )
        });
        Some([early, unknown].into_iter().flatten().collect::<Vec<_>>().join("; and "))
    }
}

/// Some of these names, which are the file's.
fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let count = names.len();
    let shown: Vec<_> = names.take(SHOWN_MAX).map(|name| one_line(name, NAME_BYTES_MAX)).collect();
    match count - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// `0.3.0-rc-2026-01-06`, in which interfaces differ from those of `0.3.0`. The part after a `+` only names a
/// build.
pub(super) fn is_pre_release(version: &str) -> bool {
    version.split('+').next().is_some_and(|version| version.contains('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(import: &str, is_core: bool) -> Option<Unmet> {
        UnmetImport::find(import, is_core).map(|unmet| unmet.why)
    }

    #[test]
    fn other_packages_are_not_provided() {
        assert_eq!(why("wasi:io/streams@0.2.3", false), None);
        assert_eq!(why("wasi:keyvalue/store@0.2.0", false), Some(Unmet::Unknown));
        assert_eq!(why("test:missing/thing", false), Some(Unmet::Unknown));
        assert_eq!(why("wasi:io/streams@0.1.0", false), Some(Unmet::Unknown));
    }

    #[test]
    fn a_pre_release_is_not_what_it_became() {
        for (import, provided) in [
            ("wasi:http/types@0.3.0-rc-2026-01-06", "0.3.0"),
            ("wasi:cli/environment@0.2.0-rc-2023-12-05", "0.2.0"),
        ] {
            let expected = Unmet::PreRelease { provided: provided.to_owned() };
            assert_eq!(why(import, false), Some(expected), "{import}");
        }
        assert_eq!(why("wasi:http/types@0.2.3+build-7", false), None);
    }

    #[test]
    fn functions_that_wasi_never_had_are_not_provided() {
        assert_eq!(why("wasi_snapshot_preview1 fd_write", true), None);
        assert_eq!(why("wasi_unstable fd_write", true), None);
        assert_eq!(why("wasi_snapshot_preview1 sock_accept", true), None);
        assert_eq!(why("wasi_unstable sock_accept", true), Some(Unmet::Unknown));
        assert_eq!(why("wasi_snapshot_preview1 sock_open", true), Some(Unmet::Unknown));
        assert_eq!(why("env memory", true), Some(Unmet::Unknown));
    }
}
