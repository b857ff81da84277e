//! Members in PostgreSQL: a row for each host, whose age is told by the server's clock.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;

use super::operation::Write;
use super::reader::{Read, View};
use super::session::Db;
use super::tx::Tx;
use super::values::{column, u64_at};
use super::{PostgresStore, counts, releases};
use crate::members::{
    Answer, Beat, DeployUnderway, Heard, MEMBER_FOR, MEMBERS_MAX, Member, MemberState, Shown, check,
};
use crate::{Members, StoreError, Timestamp};

#[async_trait]
impl Members for PostgresStore {
    async fn beat(&self, beat: Beat) -> Result<Answer, StoreError> {
        check(&beat)?;
        let beat = Beat {
            name: column(&beat.name),
            said: column(&beat.said),
            shown: beat.shown.as_deref().map(column),
            ..beat
        };
        self.write(Heartbeat(beat)).await
    }

    async fn shown(&self) -> Result<Vec<Shown>, StoreError> {
        self.read(AllShown).await
    }

    async fn leave(&self, host: &str, boot: &str) -> Result<(), StoreError> {
        self.write(Leave { host: host.to_owned(), boot: boot.to_owned() }).await
    }

    async fn forget(&self, older_than: Duration) -> Result<u64, StoreError> {
        self.write(Forget(older_than)).await
    }

    async fn begin_deploy(&self, deploy: DeployUnderway) -> Result<Option<DeployUnderway>, StoreError> {
        self.write(BeginDeploy(deploy)).await
    }

    async fn end_deploy(&self, boot: &str) -> Result<(), StoreError> {
        self.write(EndDeploy(boot.to_owned())).await
    }
}

struct Heartbeat(Beat);

const MEMBER: &str = "SELECT host, boot, name, version, state, said, seen, place FROM members";

fn member(row: &Row, now: Timestamp) -> Db<Member> {
    Ok(Member {
        host: row.try_get(0)?,
        boot: row.try_get(1)?,
        name: row.try_get(2)?,
        version: row.try_get(3)?,
        state: row.try_get::<_, MemberState>(4)?,
        said: row.try_get(5)?,
        age: now.since(row.try_get(6)?),
    })
}

#[async_trait(?Send)]
impl Write for Heartbeat {
    type Answer = Answer;

    async fn apply(&self, tx: &Tx<'_>) -> Db<Answer> {
        let Beat { host, boot, place, is_first, name, version, state, said, shown } = &self.0;
        // Two boots with one id may come at the same moment.
        tx.lock("member", &BTreeSet::from([host.clone()])).await?;
        let found = tx.query(&format!("{MEMBER} WHERE host = $1"), &[host]).await?;
        let mut own_age = None;
        if let Some(row) = found.first() {
            let before = member(row, tx.steady)?;
            if before.boot == *boot {
                own_age = Some(before.age);
            } else if before.age < MEMBER_FOR && !(*is_first && row.try_get::<_, &str>(7)? == place) {
                return Ok(Answer::Taken(before));
            }
        }
        tx.execute(
            "INSERT INTO members (host, boot, place, name, version, state, said, shown, seen)
             VALUES ($1, $2, $3, $4, $5, $6, $7, coalesce($8, ''), $9)
             ON CONFLICT (host) DO UPDATE SET
               boot = excluded.boot, place = excluded.place, name = excluded.name, version = excluded.version,
               state = excluded.state, said = excluded.said, seen = excluded.seen,
               shown = CASE WHEN $8 IS NULL AND members.boot = excluded.boot THEN members.shown
                            ELSE excluded.shown END",
            &[host, boot, place, name, version, &state.name(), said, shown, &tx.steady.0],
        )
        .await?;
        let all = format!(
            "SELECT * FROM ({MEMBER} ORDER BY seen DESC LIMIT {MEMBERS_MAX}) AS youngest ORDER BY host"
        );
        let rows = tx.query(&all, &[]).await?;
        let members = rows.iter().map(|row| member(row, tx.steady)).collect::<Db<Vec<_>>>()?;
        let live = tx.query("SELECT number FROM releases WHERE state = 'live'", &[]).await?;
        Ok(Answer::Heard(Heard {
            now: tx.now,
            members,
            own_age,
            counts: counts::all(tx).await?,
            live: live.first().map(|row| u64_at(row, 0)).transpose()?,
            deploy: underway(tx).await?,
        }))
    }
}

/// The deploy that is under way.
async fn underway(tx: &Tx<'_>) -> Db<Option<DeployUnderway>> {
    let gone = (tx.steady - MEMBER_FOR).0;
    let rows = tx
        .query(
            "SELECT release, deploy.host, deploy.boot FROM deploy JOIN members USING (host, boot) WHERE seen > $1",
            &[&gone],
        )
        .await?;
    rows.first()
        .map(|row| {
            Ok(DeployUnderway { release: u64_at(row, 0)?, host: row.try_get(1)?, boot: row.try_get(2)? })
        })
        .transpose()
}

struct AllShown;

#[async_trait]
impl Read for AllShown {
    type Answer = Vec<Shown>;

    async fn ask(&self, view: &View<'_>) -> Db<Vec<Shown>> {
        let all = format!(
            "SELECT host, shown, seen FROM (SELECT * FROM members ORDER BY seen DESC LIMIT {MEMBERS_MAX}) AS youngest
             ORDER BY host"
        );
        let rows = view.session.query(&all, &[]).await?;
        let shown = |row: &Row| {
            let age = view.steady.since(row.try_get(2)?);
            Ok(Shown { host: row.try_get(0)?, shown: row.try_get(1)?, age })
        };
        rows.iter().map(shown).collect()
    }
}

struct Leave {
    host: String,
    boot: String,
}

#[async_trait(?Send)]
impl Write for Leave {
    type Answer = ();

    async fn apply(&self, tx: &Tx<'_>) -> Db<()> {
        let leave = "DELETE FROM members WHERE host = $1 AND boot = $2";
        tx.execute(leave, &[&self.host, &self.boot]).await.map(drop)
    }
}

struct Forget(Duration);

#[async_trait(?Send)]
impl Write for Forget {
    type Answer = u64;

    async fn apply(&self, tx: &Tx<'_>) -> Db<u64> {
        tx.execute("DELETE FROM members WHERE seen < $1", &[&(tx.steady - self.0).0]).await
    }
}

struct BeginDeploy(DeployUnderway);

#[async_trait(?Send)]
impl Write for BeginDeploy {
    type Answer = Option<DeployUnderway>;

    async fn apply(&self, tx: &Tx<'_>) -> Db<Option<DeployUnderway>> {
        tx.lock("deploy", &BTreeSet::from([String::new()])).await?;
        let before = underway(tx).await?;
        if before.is_none() {
            let DeployUnderway { release, host, boot } = &self.0;
            let number = i64::try_from(*release).unwrap_or(i64::MAX);
            releases::fail_earlier(tx, number).await?;
            tx.execute(
                "INSERT INTO deploy (release, host, boot) VALUES ($1, $2, $3)
                 ON CONFLICT (one) DO UPDATE SET release = excluded.release, host = excluded.host, boot = excluded.boot",
                &[&number, host, boot],
            )
            .await?;
        }
        Ok(before)
    }
}

struct EndDeploy(String);

#[async_trait(?Send)]
impl Write for EndDeploy {
    type Answer = ();

    async fn apply(&self, tx: &Tx<'_>) -> Db<()> {
        tx.execute("DELETE FROM deploy WHERE boot = $1", &[&self.0]).await.map(drop)
    }
}
