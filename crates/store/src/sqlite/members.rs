//! Members, of a store that one process has: their rows are in its memory, as all of them go with it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::SqliteStore;
use crate::members::{Answer, Beat, DeployUnderway, Heard, Shown, Table, check};
use crate::releases::ReleaseState;
use crate::{Counts, Members, StoreError};

#[async_trait]
impl Members for SqliteStore {
    async fn beat(&self, beat: Beat) -> Result<Answer, StoreError> {
        check(&beat)?;
        let counts = self.load().await?;
        let live = self.read(|connection, _| live(connection)).await?;
        let (wall, now) = (self.clock.now(), self.clock.steady());
        let mut table = locked(&self.members);
        Ok(match table.beat(beat, now) {
            Ok(own_age) => {
                let (members, deploy) = (table.members(now), table.deploy(now));
                Answer::Heard(Heard { now: wall, members, own_age, counts, live, deploy })
            }
            Err(other) => Answer::Taken(*other),
        })
    }

    async fn shown(&self) -> Result<Vec<Shown>, StoreError> {
        Ok(locked(&self.members).shown(self.clock.steady()))
    }

    async fn leave(&self, host: &str, boot: &str) -> Result<(), StoreError> {
        locked(&self.members).leave(host, boot);
        Ok(())
    }

    async fn forget(&self, older_than: Duration) -> Result<u64, StoreError> {
        Ok(locked(&self.members).forget(older_than, self.clock.steady()))
    }

    async fn begin_deploy(&self, deploy: DeployUnderway) -> Result<Option<DeployUnderway>, StoreError> {
        Ok(locked(&self.members).begin_deploy(deploy, self.clock.steady()))
    }

    async fn end_deploy(&self, boot: &str) -> Result<(), StoreError> {
        locked(&self.members).end_deploy(boot);
        Ok(())
    }
}

fn live(connection: &rusqlite::Connection) -> rusqlite::Result<Option<u64>> {
    let mut live = connection.prepare_cached("SELECT number FROM releases WHERE state = ?1")?;
    let mut rows = live.query([ReleaseState::Live.name()])?;
    rows.next()?.map(|row| row.get(0)).transpose()
}

fn locked(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}
