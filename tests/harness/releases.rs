//! Releases, as a person sees them: what `wasmhost releases` lists, and which version answers.

use std::time::Instant;

use serde_json::Value;

use super::http::Request;
use super::{Formation, Host, Load, Ps, eventually};

/// A web type, `web`, whose component is a file beside the formation: this version of `web-test`.
pub(crate) fn versioned_web(version: &str, keys: &str) -> Formation {
    Formation::new().versioned("web", "web-test", version, keys)
}

/// A worker that notes each call in `out/log`, with a component of its own.
pub(crate) fn versioned_worker(formation: Formation, keys: &str) -> Formation {
    let dirs = "dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    formation.directory("out").versioned("worker", "job-test", "one", &format!("{dirs}\n{keys}"))
}

/// Compiles a version of `web-test`, so that a deploy of it takes no time for that.
#[track_caller]
pub(crate) fn compile_ahead(version: &str) {
    Host::run(&versioned_web(version, "")).stop().done();
}

impl Host {
    /// The releases, the newest first.
    #[track_caller]
    pub(crate) fn releases(&self) -> Vec<Value> {
        let lines = self.cli(["releases", "--json"]).done();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The number of the release that is live. There is one.
    #[track_caller]
    pub(crate) fn live(&self) -> u64 {
        let releases = self.releases();
        let live: Vec<_> = releases.iter().filter(|release| release["state"] == "live").collect();
        assert_eq!(live.len(), 1, "{releases:#?}");
        live[0]["number"].as_u64().unwrap()
    }

    /// The host has one version of each type again, with as many instances as the type's count.
    #[track_caller]
    pub(crate) fn is_alone(&self, name: &str, count: u64) {
        eventually("there is one version again", || {
            let ps = self.ps();
            let is_alone = ps.versions(name) == 1 && ps.0["canary"].is_null();
            (is_alone && ps.number(name, "actual") == count && ps.names(name).len() as u64 == count)
                .then_some(())
        });
    }

    /// The states of releases, the newest first.
    #[track_caller]
    pub(crate) fn states(&self) -> Vec<String> {
        self.releases().iter().map(|release| release["state"].as_str().unwrap().to_owned()).collect()
    }

    /// All that is known of a release.
    #[track_caller]
    pub(crate) fn release(&self, number: u64) -> Value {
        serde_json::from_str(&self.cli(["releases", "show", &number.to_string(), "--json"]).done()).unwrap()
    }

    /// The version of the component that answers.
    #[track_caller]
    pub(crate) fn version(&self) -> String {
        self.get("/version").ok().trim_end().to_owned()
    }

    /// Facts that must not change where nothing is deployed: each instance, since when it serves, and what came of it.
    #[track_caller]
    pub(crate) fn instances_of(&self, process: &str) -> Vec<Standing> {
        let asked = Instant::now();
        let ps = self.ps();
        let told = Instant::now();
        let standing = ps.instances(process).iter().map(|instance| Standing {
            name: instance["name"].as_str().unwrap().to_owned(),
            uptime_s: instance["uptime_s"].as_f64().unwrap(),
            asked,
            told,
            calls: instance["calls"].as_u64().unwrap(),
            ended: instance["restarts"].as_u64().unwrap() + instance["recycled"].as_u64().unwrap(),
        });
        standing.collect()
    }

    /// Clients of `/version`, each of whose answers has to be one of these.
    pub(crate) fn load_of_versions(&self, threads: u64, versions: &'static [&'static str]) -> Load {
        let check = move |_, answer| match answer {
            Ok(super::http::Answer { status: 200, body, .. })
                if versions.contains(&String::from_utf8_lossy(&body).trim_end()) =>
            {
                Ok(true)
            }
            other => Err(format!("expected one of {versions:?}: {other:?}")),
        };
        Load::start(self.address(), threads, |_| Request::get("/version"), check)
    }
}

impl Ps {
    /// A type's canary.
    #[track_caller]
    pub(crate) fn canary(&self, name: &str) -> &Value {
        let types = self.0["types"].as_array().unwrap();
        let canary = types.iter().find(|view| view["process"] == name && view["canary"] == true);
        canary.unwrap_or_else(|| panic!("no canary of {name} in {self:#?}"))
    }

    /// Instances that there should be: of the live version and of the canary.
    #[track_caller]
    pub(crate) fn parts(&self, name: &str) -> [u64; 2] {
        [self.process(name), self.canary(name)].map(|view| view["desired"].as_u64().unwrap())
    }

    /// The names of all instances of a type that serve, in both versions.
    pub(crate) fn names(&self, name: &str) -> Vec<String> {
        let types = self.0["types"].as_array().unwrap();
        let instances = types.iter().filter(|view| view["process"] == name);
        let instances = instances.flat_map(|view| view["instances"].as_array().unwrap());
        let mut names: Vec<_> =
            instances.map(|instance| instance["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    /// How often a type is listed.
    pub(crate) fn versions(&self, name: &str) -> usize {
        let types = self.0["types"].as_array().unwrap();
        types.iter().filter(|view| view["process"] == name).count()
    }
}

/// An instance that serves.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    name: String,
    uptime_s: f64,
    /// The test asked for it then, and had the answer then.
    asked: Instant,
    told: Instant,
    calls: u64,
    ended: u64,
}

/// The same instance that nobody has called meanwhile: it is older by the time that has passed at least.
impl PartialEq for Standing {
    fn eq(&self, other: &Standing) -> bool {
        let (earlier, later) = if self.asked <= other.asked { (self, other) } else { (other, self) };
        let passed = later.asked.saturating_duration_since(earlier.told);
        (&self.name, self.calls, self.ended) == (&other.name, other.calls, other.ended)
            && later.uptime_s + 0.001 >= earlier.uptime_s + passed.as_secs_f64()
    }
}
