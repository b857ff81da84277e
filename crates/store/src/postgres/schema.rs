//! The schema: made where it isn't there, and brought to the newest version.
//!
//! Hosts of different versions may share it while they are upgraded one after another. `facts` says which version it has,
//! and the least version of a host that may still join. A step that older hosts can't live with raises that.

use super::errors;
use super::session::Session;
use crate::StoreError;

/// Each step takes the schema from the version before it (its index) to the next; they are never edited once released.
const MIGRATIONS: &[Step] = &[Step { sql: include_str!("schema_1.sql"), joins_from: 1 }];

struct Step {
    sql: &'static str,
    /// The least version that may use the schema after this step.
    joins_from: i64,
}

/// Does it under a lock, so that hosts that start together don't do it twice: all steps in one transaction.
pub(super) async fn migrate(session: &Session) -> Result<(), StoreError> {
    let done = steps(session).await;
    if done.is_err() {
        let _ = session.run("ROLLBACK").await;
    }
    done
}

async fn steps(session: &Session) -> Result<(), StoreError> {
    let place = session.place();
    let failed = |error: tokio_postgres::Error| errors::opening_failed(place, &error);
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let (found, joins_from) = versions(session).await.map_err(failed)?.unwrap_or((0, 0));
    if found >= known {
        return match joins_from <= known {
            true => Ok(()),
            false => Err(StoreError::NewerSchema { path: place.to_string(), found, known }),
        };
    }
    let schema = &place.schema;
    session.run("BEGIN").await.map_err(failed)?;
    let lock = format!("wasmhost schema {schema}");
    session.query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", &[&lock]).await.map_err(failed)?;
    let exists =
        session.query("SELECT 1 FROM pg_namespace WHERE nspname = $1", &[schema]).await.map_err(failed)?;
    if exists.is_empty() {
        session.run(&format!("CREATE SCHEMA {}", errors::identifier(schema))).await.map_err(failed)?;
    }
    // Another host may have done it meanwhile.
    let found = versions(session).await.map_err(failed)?;
    if found.is_none() {
        let tables = "SELECT 1 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
                      WHERE nspname = $1 AND relkind = 'r' LIMIT 1";
        if !session.query(tables, &[schema]).await.map_err(failed)?.is_empty() {
            return Err(StoreError::Open(format!(
                "{place} has tables of another program, and was left as it is: name another schema by \"?schema=...\" in [store] url"
            )));
        }
        let facts = "CREATE TABLE facts (name text PRIMARY KEY, value bigint NOT NULL)";
        session.run(facts).await.map_err(failed)?;
    }
    let from = usize::try_from(found.map_or(0, |(version, _)| version)).unwrap_or(0);
    for (version, step) in MIGRATIONS.iter().enumerate().skip(from) {
        session.run(step.sql).await.map_err(failed)?;
        let version = i64::try_from(version).unwrap_or(i64::MAX).saturating_add(1);
        session
            .query(
                "INSERT INTO facts (name, value) VALUES ('version', $1), ('joins_from', $2)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                &[&version, &step.joins_from],
            )
            .await
            .map_err(failed)?;
    }
    session.run("COMMIT").await.map_err(failed)?;
    Ok(())
}

/// The version of the schema, and the least that may join; none where it isn't there, or not ours.
async fn versions(session: &Session) -> Result<Option<(i64, i64)>, tokio_postgres::Error> {
    let schema = &session.place().schema;
    let facts = format!("{}.facts", errors::identifier(schema));
    let there = session.query("SELECT to_regclass($1) IS NOT NULL", &[&facts]).await?;
    if !there.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(false) {
        return Ok(None);
    }
    let rows = session.query(&format!("SELECT name, value FROM {facts}"), &[]).await?;
    let mut versions = (0, 0);
    for row in rows {
        match row.try_get::<_, &str>(0)? {
            "version" => versions.0 = row.try_get(1)?,
            "joins_from" => versions.1 = row.try_get(1)?,
            _ => {}
        }
    }
    Ok(Some(versions))
}
