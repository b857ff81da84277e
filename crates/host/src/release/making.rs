//! From a plan to a release: components are compiled or found in the cache, and each type gets a version. A type that a
//! release doesn't change keeps the version that it has.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use wasmhost_config::{EnvVar, Isolation, Run, Trigger};
use wasmhost_engine::services::Services;
use wasmhost_engine::{Engine, EngineOptions, Handler};

use super::{Release, ReleaseType};
use crate::capacity::Capacity;
use crate::host::{Loaded, Progress, StartError, load};
use crate::plan::{CONCURRENCY_DEFAULT, Plan, PlannedType};
use crate::pool::{Keeping, Learned, Subject, Version};
use crate::trigger::release;

/// Slots of the pool for instances that no type has: the one that is tried before a release, or a release step's.
const SLOTS_BESIDE: u32 = 1;

/// The means that releases are made with.
pub(crate) struct Making {
    pub(crate) engine: Arc<Engine>,
    pub(crate) capacity: Capacity,
    pub(crate) services: Services,
    pub(crate) learned: Arc<Learned>,
}

impl Making {
    /// Makes a release of a plan. `kept` has the versions of types that it doesn't change, by name. Returns the engine that
    /// it was made for, too: the next releases are made for that one, once this one is live.
    pub(crate) async fn make(
        &self,
        number: u64,
        plan: Plan,
        kept: &HashMap<String, Arc<Version>>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(Release, Arc<Engine>), StartError> {
        let Plan { formation, types } = plan;
        let (known, new): (Vec<_>, Vec<_>) =
            types.into_iter().enumerate().partition(|(_, planned)| kept.contains_key(&planned.process.name));
        let engine = self.engine_for(new.iter().map(|(_, planned)| planned))?;
        let (at, planned): (Vec<usize>, Vec<PlannedType>) = new.into_iter().unzip();
        let loaded = load(engine.clone(), planned, self.services.clone(), progress).await?;
        let made = at.into_iter().zip(loaded.into_iter().map(|loaded| self.type_of(number, loaded)));
        let known = known.into_iter().filter_map(|(at, mut planned)| {
            let version = kept.get(&planned.process.name)?.clone();
            let digest = std::mem::take(&mut planned.code).digest();
            Some((at, ReleaseType { planned, digest, version }))
        });
        let mut types: Vec<_> = made.chain(known).collect();
        types.sort_by_key(|(at, _)| *at);
        let types = types.into_iter().map(|(_, kind)| kind).collect();
        Ok((Release { number, formation, types }, engine))
    }

    /// A release with larger instances than the pool was made for gets a pool of its own. The old one goes with its last
    /// instance.
    fn engine_for<'a>(
        &self,
        types: impl Iterator<Item = &'a PlannedType> + Clone,
    ) -> Result<Arc<Engine>, StartError> {
        let options = engine_options(types, &self.capacity);
        if self.engine.fits(options.memory_bytes_max, options.footprint) {
            return Ok(self.engine.clone());
        }
        self.capacity.check_pool(options.slots, options.footprint.stacks)?;
        Ok(self.engine.with_pool(options))
    }

    fn type_of(&self, number: u64, loaded: Loaded) -> ReleaseType {
        let Loaded { planned, component, digest } = loaded;
        let subject = Subject {
            component: digest.clone(),
            process: planned.process.name.as_str().into(),
            settings: settings(&planned),
        };
        let version = Version::new(number, component, keeping(&planned), subject, &self.learned);
        ReleaseType { planned, digest, version }
    }
}

/// A hash of what a type's instances are started with. One that another version of this program reckons otherwise costs a lesson.
fn settings(planned: &PlannedType) -> u64 {
    let mut hasher = DefaultHasher::new();
    let process = &planned.process;
    process.args.hash(&mut hasher);
    for EnvVar { name, value, secret } in &process.grants.env {
        // No trace of a secret stays.
        (name, (!secret).then_some(value)).hash(&mut hasher);
    }
    hasher.finish()
}

/// The size of a pool that holds these types.
pub(crate) fn engine_options<'a>(
    types: impl Iterator<Item = &'a PlannedType> + Clone,
    capacity: &Capacity,
) -> EngineOptions {
    let memory = types.clone().map(|planned| planned.process.memory_bytes_max).max();
    EngineOptions {
        slots: capacity.slots().saturating_add(SLOTS_BESIDE),
        memory_bytes_max: memory.unwrap_or(0),
        footprint: types.fold(Default::default(), |most, planned| planned.footprint.max(most)),
        guest_descriptors_max: capacity.guest_descriptors(),
        alone: false,
    }
}

/// A command's `main` can be entered once, and one call is what `max_calls = 1` says too.
fn keeping(planned: &PlannedType) -> Keeping {
    let process = &planned.process;
    let fresh_each_call = process.isolation == Some(Isolation::Call)
        || process.max_calls == Some(1)
        || planned.handler.is_command();
    Keeping {
        fresh_each_call,
        learns: process.isolation.is_none(),
        // Those of a place are counted together there, and each is fresh anyway.
        max_calls: process.max_calls.filter(|_| !fresh_each_call),
        max_age: process.max_age,
        concurrency: match planned.handler {
            Handler::Http03 | Handler::AsyncJob | Handler::AsyncTick => {
                process.concurrency.unwrap_or(CONCURRENCY_DEFAULT)
            }
            _ => 1,
        },
    }
}

/// Runs the release steps, one after another in the file's order. `begun` is told of each as it begins.
pub(crate) async fn run_release_steps(
    release: &Release,
    mut begun: impl FnMut(&str),
) -> Result<(), StartError> {
    for kind in &release.types {
        if matches!(kind.planned.trigger, Trigger::Command { run: Run::Release }) {
            begun(kind.name());
            kind.version.component.weigh(kind.planned.process.weight);
            release::run(kind.name(), &kind.version.component, kind.limits()).await?;
        }
    }
    Ok(())
}
