//! Members: the hosts that share one store, and with it one formation.
//!
//! Each host writes a row by a heartbeat every two seconds, and reads those of all others by the same call. The store
//! judges ages by its own clock alone, so that hosts' clocks may be hours apart. It keeps rows and decides one thing:
//! whether a heartbeat may have its row ([`Answer::Taken`]). The list tells hosts who is
//! a member, and which host has which instances.
//!
//! A row has two texts of the host's own, which the store doesn't read. `said` is short, and every host reads it each
//! time. `shown` may be long, and is read only where a person asks.

mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use crate::{StoreError, Timestamp};

pub use table::Table;

/// A host is a member as long as its heartbeat is younger than this.
pub const MEMBER_FOR: Duration = Duration::from_secs(10);

/// The most that a host may say to all others in each heartbeat.
pub const SAID_BYTES_MAX: usize = 16 << 10;

/// The most that a host may have to show to people.
pub const SHOWN_BYTES_MAX: usize = 1 << 20;

/// A host's id, boot, place, name and version have at most so many bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// Rows that a list has at most: the youngest.
pub const MEMBERS_MAX: u32 = 10_000;

/// Whether a host takes part in the split of the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// It starts, and has no instances yet.
    Starting,
    /// It has its share of the counts.
    Joined,
    /// It drains: its share is for others.
    Draining,
}

impl MemberState {
    /// All of them.
    pub const ALL: [MemberState; 3] = [MemberState::Starting, MemberState::Joined, MemberState::Draining];

    /// Its name, as in JSON and in the database.
    pub fn name(self) -> &'static str {
        match self {
            MemberState::Starting => "starting",
            MemberState::Joined => "joined",
            MemberState::Draining => "draining",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<MemberState> {
        MemberState::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The host's id: the same in all its boots.
    pub host: String,
    /// Unique for each boot of each host.
    pub boot: String,
    /// The machine or container where the host runs. Two that run at once never have the same.
    pub place: String,
    /// True for the first heartbeat of a boot: it takes the row of a boot at the same place, which is dead.
    pub is_first: bool,
    /// The host's name, for people.
    pub name: String,
    /// The version of wasmhost.
    pub version: String,
    /// Whether it takes part in the split.
    pub state: MemberState,
    /// The text for all hosts, at most [`SAID_BYTES_MAX`].
    pub said: String,
    /// The text for people, at most [`SHOWN_BYTES_MAX`]. `None` leaves it as it is.
    pub shown: Option<String>,
}

/// The store's answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The row is written.
    Heard(Heard),
    /// Nothing is written: another boot of a host with this id has the row, and its heartbeat is younger than
    /// [`MEMBER_FOR`]. This is its row.
    Taken(Member),
}

/// All that a host hears after a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The store's time, by its wall clock. Hosts whose own clocks differ agree on this one.
    pub now: Timestamp,
    /// All rows, the own one included, by the hosts' ids.
    pub members: Vec<Member>,
    /// The age that the own row had before this heartbeat; `None` where there was none, or another boot's.
    pub own_age: Option<Duration>,
    /// The counts that were set live, as [`Counts::load`](crate::Counts::load) has them.
    pub counts: BTreeMap<String, u32>,
    /// The number of the live release, if there is one.
    pub live: Option<u64>,
    /// The deploy that is under way, if one is.
    pub deploy: Option<DeployUnderway>,
}

/// A row as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// See [`Beat::host`].
    pub host: String,
    /// See [`Beat::boot`].
    pub boot: String,
    /// See [`Beat::name`].
    pub name: String,
    /// See [`Beat::version`].
    pub version: String,
    /// See [`Beat::state`].
    pub state: MemberState,
    /// See [`Beat::said`].
    pub said: String,
    /// The time since its last heartbeat, by the store's clock.
    pub age: Duration,
}

/// The text that a host has for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The host.
    pub host: String,
    /// See [`Beat::shown`]. Empty where it never said any.
    pub shown: String,
    /// The time since its last heartbeat.
    pub age: Duration,
}

/// A deploy that is under way. There is at most one, and it is over where the boot that runs it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeployUnderway {
    /// The release that is to be live.
    pub release: u64,
    /// The host that runs it.
    pub host: String,
    /// Its boot.
    pub boot: String,
}

/// The hosts of one formation.
#[async_trait]
pub trait Members: Send + Sync + 'static {
    /// Writes the own row, and reads everybody's: both, or neither.
    ///
    /// The row is the caller's where there is none, where it is that of the same boot, where it is [`MEMBER_FOR`] old
    /// or older, and where this is a boot's first heartbeat and the row was written at the same place. Otherwise the
    /// answer is [`Answer::Taken`].
    ///
    /// A deploy whose host has left, is [`MEMBER_FOR`] old or has another boot isn't under way any more.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] where a text is too long.
    async fn beat(&self, beat: Beat) -> Result<Answer, StoreError>;

    /// The texts for people, of all rows, by the hosts' ids.
    async fn shown(&self) -> Result<Vec<Shown>, StoreError>;

    /// The host is gone, as it was planned: its row goes. Nothing where another boot has it.
    async fn leave(&self, host: &str, boot: &str) -> Result<(), StoreError>;

    /// Forgets rows that are older than this. Returns how many.
    async fn forget(&self, older_than: Duration) -> Result<u64, StoreError>;

    /// Begins a deploy, unless one is under way, which is returned then. The boot must have the host's row: without it
    /// the deploy would be over at once.
    ///
    /// In a store that hosts share, releases that are pending and have lower numbers fail as it begins: their hosts are gone,
    /// or were overtaken.
    async fn begin_deploy(&self, deploy: DeployUnderway) -> Result<Option<DeployUnderway>, StoreError>;

    /// The deploy that this boot began is over. Nothing where it is another's.
    async fn end_deploy(&self, boot: &str) -> Result<(), StoreError>;
}

/// Checks a heartbeat before it reaches the backend.
pub(crate) fn check(beat: &Beat) -> Result<(), StoreError> {
    let at_most = |what: &str, found: usize, max: usize| match found > max {
        true => {
            Err(StoreError::Invalid(format!("the host's {what} is {found} bytes long; {max} is the most")))
        }
        false => Ok(()),
    };
    for (what, text) in [
        ("id", &beat.host),
        ("boot", &beat.boot),
        ("place", &beat.place),
        ("name", &beat.name),
        ("version", &beat.version),
    ] {
        at_most(what, text.len(), NAME_BYTES_MAX)?;
    }
    at_most("text for other hosts", beat.said.len(), SAID_BYTES_MAX)?;
    at_most("text for people", beat.shown.as_ref().map_or(0, String::len), SHOWN_BYTES_MAX)
}
