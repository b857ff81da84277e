//! The texts of a host's row: one for the other hosts, which is short, and one for people. Hosts of other versions read
//! them, so a field that is missing has its default, and one that isn't known is passed over.

use serde::{Deserialize, Serialize};
use wasmhost_store::members::{SAID_BYTES_MAX, SHOWN_BYTES_MAX};

use crate::admin::api::TypeView;

/// The text for other hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Said {
    /// The release that it serves.
    #[serde(default)]
    pub(crate) release: u64,
    /// Where it serves requests.
    #[serde(default)]
    pub(crate) http: Vec<String>,
    /// The release that it was to prepare for another host's deploy, and how that went.
    #[serde(default)]
    pub(crate) prepared: Option<SaidPrepared>,
    /// Its process id.
    #[serde(default)]
    pub(crate) pid: u32,
    /// The types that have instances here, or should have.
    #[serde(default)]
    pub(crate) types: Vec<SaidType>,
}

/// A release that a host was to prepare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SaidPrepared {
    pub(crate) release: u64,
    /// The boot of the host that deploys it.
    pub(crate) by: String,
    /// Why it could not; nothing where it could.
    pub(crate) why: Option<String>,
}

/// A type on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SaidType {
    pub(crate) process: String,
    /// The formation's count, as this host knows it.
    pub(crate) count: u32,
    /// The host's part of it.
    pub(crate) desired: u32,
    /// Instances that serve.
    pub(crate) actual: u32,
    /// Instances that it has no room for.
    #[serde(default)]
    pub(crate) lacks: u32,
}

impl Said {
    /// The part about the types.
    pub(crate) fn of(types: &[TypeView]) -> Vec<SaidType> {
        let types = types.iter().filter(|view| !view.leaving && !view.canary);
        let said = types.map(|view| SaidType {
            process: view.process.clone(),
            count: view.count,
            desired: view.desired,
            actual: view.actual,
            lacks: view.lacks,
        });
        said.collect()
    }

    /// As JSON. A formation with hundreds of types says as many of them as fit.
    pub(crate) fn to_text(&self) -> String {
        let mut said = self.clone();
        loop {
            let text = serde_json::to_string(&said).unwrap_or_default();
            if text.len() <= SAID_BYTES_MAX {
                return text;
            }
            let (types, http) = (said.types.len() / 2, said.http.len() / 2);
            said.types.truncate(types);
            said.http.truncate(http);
        }
    }

    pub(crate) fn from_text(text: &str) -> Said {
        serde_json::from_str(text).unwrap_or_default()
    }
}

/// The types for people, as JSON. Where there are very many instances some are left out.
pub(crate) fn shown(types: &[TypeView]) -> String {
    let mut types: Vec<TypeView> = types.to_vec();
    for view in &mut types {
        view.last_crash = None;
        view.directories.clear();
    }
    loop {
        let text = serde_json::to_string(&types).unwrap_or_default();
        if text.len() <= SHOWN_BYTES_MAX {
            return text;
        }
        if types.iter().all(|view| view.instances.is_empty()) {
            return "[]".to_owned();
        }
        for view in &mut types {
            view.instances.truncate(view.instances.len() / 2);
        }
    }
}

/// The types of another host.
pub(crate) fn types_of(shown: &str) -> Vec<TypeView> {
    serde_json::from_str(shown).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn view(process: &str, instances: usize) -> TypeView {
        let instance = |index: usize| {
            json!({
                "name": format!("{process}.{index}"), "index": index, "state": "idle", "uptime_s": 1.0, "calls": 1,
                "restarts": 0, "recycled": 0, "cpu_s": 0.5, "memory_bytes": 65536, "note": null,
            })
        };
        let view = json!({
            "process": process, "trigger": "http", "count": 9, "desired": 3, "in_file": 1, "actual": 2, "replacing": 0,
            "draining": 0, "waiting": 0, "restarts": 0, "recycled": 0, "last_end": null, "lacks": 1,
            "instances": (1..=instances).map(instance).collect::<Vec<_>>(),
        });
        serde_json::from_value(view).unwrap()
    }

    #[test]
    fn a_host_says_what_it_has_and_others_read_it() {
        let said = Said { release: 7, types: Said::of(&[view("web", 2)]), ..Said::default() };
        let read = Said::from_text(&said.to_text());
        assert_eq!(read, said);
        let SaidType { process, count, desired, actual, lacks } = &read.types[0];
        assert_eq!((&**process, *count, *desired, *actual, *lacks), ("web", 9, 3, 2, 1));
        assert_eq!(types_of(&shown(&[view("web", 2)]))[0].instances[1].name, "web.2");
    }

    #[test]
    fn texts_of_other_versions_are_read_as_far_as_they_go() {
        assert_eq!(Said::from_text("nonsense"), Said::default());
        assert_eq!(Said::from_text(r#"{"release":3,"news":[1]}"#), Said { release: 3, ..Said::default() });
        assert_eq!(types_of("{}").len(), 0);
    }

    #[test]
    fn texts_are_bounded() {
        let types: Vec<TypeView> = (0..2_000).map(|n| view(&format!("type-number-{n}"), 0)).collect();
        let said = Said { types: Said::of(&types), ..Said::default() };
        assert!(said.to_text().len() <= SAID_BYTES_MAX && !Said::from_text(&said.to_text()).types.is_empty());
        let shown = shown(&[view("web", 20_000)]);
        assert!(shown.len() <= SHOWN_BYTES_MAX && types_of(&shown)[0].instances.len() > 1_000);
    }
}
