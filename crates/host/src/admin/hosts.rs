//! How a formation stands on all its hosts: this one as it is, and the others as they last said.

use std::time::{Duration, Instant};

use tracing::warn;
use wasmhost_store::members::{MEMBER_FOR, Member, MemberState};

use super::api::{FormationView, HostView, TypeView};
use super::{Admin, ApiError};
use crate::members::heart::Membership;
use crate::members::said::{Said, types_of};

/// How often a wait looks how the other hosts stand.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long the store may take to say what other hosts have to show.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);

impl Admin {
    /// Adds the other hosts to what this one knows of itself, where there are any.
    pub(super) async fn add_hosts(&self, formation: &mut FormationView) {
        let Some(membership) = &self.membership else { return };
        let known = membership.known();
        formation.hosts = known.members.iter().map(|member| host_view(member, membership)).collect();
        name_apart(&mut formation.hosts);
        if formation.hosts.len() < 2 {
            return;
        }
        let host_of =
            |id: &str| formation.hosts.iter().find(|host| host.id == id).map(|host| host.name.clone());
        let own = host_of(membership.host());
        for view in &mut formation.types {
            view.instances.iter_mut().for_each(|instance| instance.host.clone_from(&own));
        }
        let shown = match tokio::time::timeout(SHOWN_WITHIN, membership.shown()).await {
            Ok(Ok(shown)) => shown,
            Ok(Err(err)) => return warn!("the instances of other hosts aren't known: {err}"),
            Err(_) => return warn!("the instances of other hosts aren't known: the store doesn't answer"),
        };
        for row in shown.into_iter().filter(|row| row.host != membership.host() && row.age < MEMBER_FOR) {
            let host = host_of(&row.host);
            for mut view in types_of(&row.shown) {
                view.instances.iter_mut().for_each(|instance| instance.host.clone_from(&host));
                add_type(&mut formation.types, view);
            }
        }
    }
}

impl Admin {
    /// Waits until the instances of all hosts come to the counts of these types, and returns whether they do, with the
    /// types.
    pub(super) async fn settled_everywhere(
        &self,
        is_wanted: impl Fn(&TypeView) -> bool,
        begun: Instant,
        wait_s: Option<f64>,
    ) -> Result<(bool, Vec<TypeView>), ApiError> {
        let wait = Duration::try_from_secs_f64(wait_s.unwrap_or_default()).unwrap_or(Duration::MAX);
        loop {
            let mut types = self.formation().await?.types;
            types.retain(&is_wanted);
            let has_all = |view: &TypeView| view.actual == view.count && view.desired == view.count;
            let is_settled = types.iter().filter(|view| !view.leaving).all(has_all);
            if is_settled || begun.elapsed() >= wait {
                return Ok((is_settled, types));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Adds what another host has of a type to the same type here.
fn add_type(types: &mut Vec<TypeView>, mut other: TypeView) {
    let is_same = |view: &&mut TypeView| {
        view.process == other.process && view.canary == other.canary && view.leaving == other.leaving
    };
    let Some(view) = types.iter_mut().find(is_same) else {
        // The other host has a release that this one doesn't have yet, or doesn't have any more.
        return types.push(other);
    };
    for (sum, more) in [
        (&mut view.desired, other.desired),
        (&mut view.actual, other.actual),
        (&mut view.replacing, other.replacing),
        (&mut view.draining, other.draining),
        (&mut view.waiting, other.waiting),
        (&mut view.lacks, other.lacks),
    ] {
        *sum = sum.saturating_add(more);
    }
    view.restarts = view.restarts.saturating_add(other.restarts);
    view.recycled = view.recycled.saturating_add(other.recycled);
    view.last_end = view.last_end.take().or(other.last_end);
    view.instances.append(&mut other.instances);
    view.instances.sort_by_key(|instance| instance.index);
}

fn host_view(member: &Member, membership: &Membership) -> HostView {
    let Said { release, http, pid, types, .. } = Said::from_text(&member.said);
    let is_silent = member.age >= MEMBER_FOR;
    HostView {
        id: member.host.clone(),
        name: member.name.clone(),
        here: member.host == membership.host(),
        state: match member.state {
            _ if is_silent => "silent",
            MemberState::Starting => "starting",
            MemberState::Joined => "joined",
            MemberState::Draining => "draining",
        }
        .to_owned(),
        heard_s: member.age.as_secs_f64(),
        version: member.version.clone(),
        release,
        pid,
        http,
        actual: types.iter().map(|of| of.actual).fold(0, u32::saturating_add),
        desired: types.iter().map(|of| of.desired).fold(0, u32::saturating_add),
        lacks: types.iter().map(|of| of.lacks).fold(0, u32::saturating_add),
    }
}

/// Hosts on one machine have one name: the beginning of its id tells each of them from the others.
fn name_apart(hosts: &mut [HostView]) {
    let names: Vec<String> = hosts.iter().map(|host| host.name.clone()).collect();
    for host in hosts {
        if names.iter().filter(|name| **name == host.name).count() > 1 {
            let id: String = host.id.chars().take(4).collect();
            host.name = format!("{}-{id}", host.name);
        }
    }
}
