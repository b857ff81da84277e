//! A deploy on all hosts that share the store. The host that was asked prepares the release, and then all others do; each
//! says in its heartbeat whether it could. Only when none is missing does the first one move its instances and make the
//! release live, and the others follow when they hear so.
//!
//! ```text
//! the host that was asked:  prepare -> begin_deploy ─────────────> all prepared -> move -> live in the store
//! each other one:                          └> fetch -> make -> try -> "prepared" ┘               └> move
//! ```
//!
//! Where one can't, or says nothing for too long, the release has failed and nothing has changed anywhere. A host that dies
//! isn't waited for: it starts with the live release.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::warn;
use wasmhost_store::components::COMPONENTS_BYTES_MAX;
use wasmhost_store::releases::{Release as Record, ReleaseComponent, ReleaseState};
use wasmhost_store::{Components, StoreError};

use super::deploying::{Attempt, Deploying, Done};
use super::{Release, Shelf, Wanted};
use crate::members::heart::{Known, Membership};
use crate::members::said::{Said, SaidPrepared};
use crate::plan::Plan;

impl Deploying {
    /// Waits until all other hosts have prepared a release. An error names one that can't.
    pub(super) async fn prepare_everywhere(
        &self,
        release: &Release,
        attempt: &mut Attempt<'_>,
    ) -> Result<(), String> {
        let Some(membership) = &self.parts.membership else { return Ok(()) };
        if let Some(components) = &self.parts.components {
            attempt.waits_for = "its components were being stored for the other hosts".to_owned();
            let digests: Vec<String> = release.types.iter().map(|kind| kind.digest.clone()).collect();
            attempt.within(hand_on(components.clone(), self.parts.shelf.clone(), digests)).await??;
        }
        attempt.waits_for = "the store was being told of it".to_owned();
        let begun = attempt.within(membership.begin_deploy(release.number)).await?;
        if let Some(other) = begun.map_err(|err| err.to_string())? {
            return Err(match other.release {
                0 => "another host is starting: wait until it has".to_owned(),
                release => format!("another host deploys v{release}: wait until it has ended"),
            });
        }
        // A later one may have been deployed while this one was made.
        let record = attempt.within(self.made_elsewhere(release.number)).await??;
        if record.state != ReleaseState::Pending {
            return Err(record.why.unwrap_or_else(|| format!("it is {} already", record.state)));
        }
        let mut known = membership.watch();
        loop {
            let missing = known.borrow_and_update().unprepared(membership, release.number)?;
            let Some(host) = missing else { return Ok(()) };
            attempt.waits_for = format!("the host {host} was preparing it");
            attempt.within(known.changed()).await?.map_err(|_| "the host is stopping".to_owned())?;
        }
    }

    /// Another host deploys this release, or has made it live.
    pub(super) async fn follow(
        &mut self,
        wanted: Wanted,
        number: u64,
        attempt: &mut Attempt<'_>,
    ) -> Result<Done, String> {
        let (plan, _) = attempt.within(self.read(wanted)).await??;
        let changes = self.changes(&plan);
        if !changes.refused.is_empty() {
            return Err(format!("this can't change while the host runs: {}", changes.refused.join("; ")));
        }
        attempt.waits_for = "the counts were being read".to_owned();
        let counts = attempt.within(self.parts.counts.load()).await?;
        let here = self.part_of(&plan, &counts.map_err(|err| format!("the counts can't be read: {err}"))?);
        self.parts.making.capacity.check_plan(&plan, &here).map_err(|too_many| too_many.to_string())?;
        let prepared = self.make(number, plan, &changes, false, attempt).await?;
        if matches!(wanted, Wanted::Prepare(_)) {
            return Ok(Done::Unchanged);
        }
        let (prepared, places, opened) = self.move_prepared(prepared, attempt).await?;
        self.take_over(prepared, places, opened).await;
        Ok(Done::Live(number))
    }

    /// A release that another host has made.
    pub(super) async fn made_elsewhere(&self, number: u64) -> Result<Record, String> {
        let record = self.parts.releases.release(number).await.map_err(|err| err.to_string())?;
        record.ok_or_else(|| format!("v{number} isn't in the store"))
    }

    /// The counts that this host will have of those that were set live.
    pub(super) fn part_of(&self, plan: &Plan, counts: &BTreeMap<String, u32>) -> BTreeMap<String, u32> {
        let membership = self.parts.membership.as_ref();
        membership.map_or_else(|| counts.clone(), |membership| membership.part_of(plan, counts))
    }

    /// The deploy is over, for the other hosts too.
    pub(super) async fn end_everywhere(&self) {
        if let Some(membership) = &self.parts.membership
            && let Err(err) = membership.end_deploy().await
        {
            warn!("the other hosts could not be told that the deploy is over: {err}");
        }
    }
}

impl Known {
    /// A host that takes part and hasn't said yet that it has prepared the release which this one deploys. An error names
    /// one that can't.
    fn unprepared(&self, membership: &Membership, release: u64) -> Result<Option<String>, String> {
        let mut missing = None;
        for member in self.taking_part().filter(|member| member.host != membership.host()) {
            let said = Said::from_text(&member.said).prepared;
            let said = said.filter(|said| said.release == release && said.by == membership.boot());
            match said {
                Some(SaidPrepared { why: Some(why), .. }) => {
                    return Err(format!("the host {} ({}) can't run it: {why}", member.name, member.host));
                }
                Some(_) => {}
                None => missing = missing.or_else(|| Some(format!("{} ({})", member.name, member.host))),
            }
        }
        Ok(missing)
    }
}

/// Puts components from the shelf into the store, as far as there may be so much.
pub(crate) async fn hand_on(
    components: Arc<dyn Components>,
    shelf: Arc<Shelf>,
    digests: Vec<String>,
) -> Result<(), String> {
    let read = tokio::task::spawn_blocking(move || {
        let paths = digests.into_iter().filter_map(|digest| Some((shelf.find(&digest)?, digest)));
        let read = |(path, digest): (PathBuf, String)| Ok((digest, std::fs::read(path)?));
        paths.map(read).collect::<std::io::Result<Vec<(String, Vec<u8>)>>>()
    });
    let files = read.await.map_err(|err| err.to_string())?;
    let files = files.map_err(|err| format!("its components can't be read: {err}"))?;
    let bytes: u64 = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    if bytes > COMPONENTS_BYTES_MAX {
        warn!(
            "the components come to {bytes} bytes, and {COMPONENTS_BYTES_MAX} are handed on by the store: each host needs them in its own files"
        );
        return Ok(());
    }
    for (digest, bytes) in files {
        let put = components.put(&digest, bytes).await;
        put.map_err(|err| format!("its components can't be stored for the other hosts: {err}"))?;
    }
    Ok(())
}

/// Brings the components of a release to the shelf that aren't there yet.
pub(super) async fn fetch_components(
    record: &Record,
    components: Option<&Arc<dyn Components>>,
    shelf: &Arc<Shelf>,
) -> Result<(), String> {
    let Some(components) = components else { return Ok(()) };
    for ReleaseComponent { process, digest, .. } in &record.components {
        if shelf.find(digest).is_some() {
            continue;
        }
        let bytes = components.fetch(digest).await.map_err(|err: StoreError| err.to_string())?;
        let Some(bytes) = bytes else {
            return Err(format!(
                "process.{process}: its component isn't in the store, which hands on {} MiB at most: copy the files to this host",
                COMPONENTS_BYTES_MAX >> 20
            ));
        };
        let (shelf, digest) = (shelf.clone(), digest.clone());
        let kept = tokio::task::spawn_blocking(move || shelf.put(&digest, &bytes)).await;
        let kept = kept.map_err(std::io::Error::other).and_then(|kept| kept);
        kept.map_err(|err| format!("process.{process}: its component can't be kept: {err}"))?;
    }
    Ok(())
}
