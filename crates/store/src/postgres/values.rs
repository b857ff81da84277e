//! How our types look in a column.

use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

use super::session::Db;
use crate::Timestamp;
use crate::jobs::{AttemptEnd, JobState};
use crate::members::MemberState;
use crate::releases::ReleaseState;
use crate::ticks::TickResult;

/// A value that is read by a column's text or number.
macro_rules! reads_text {
    ($($type:ty: $from_name:expr),+) => {$(
        impl<'a> FromSql<'a> for $type {
            fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
                let name = <&str as FromSql>::from_sql(kind, raw)?;
                $from_name(name).ok_or_else(|| format!("the store has {name:?}, which this version doesn't know").into())
            }

            fn accepts(kind: &Type) -> bool {
                <&str as FromSql>::accepts(kind)
            }
        }
    )+};
}

reads_text! {
    JobState: JobState::from_name,
    AttemptEnd: AttemptEnd::from_name,
    TickResult: TickResult::from_name,
    ReleaseState: ReleaseState::from_name,
    MemberState: MemberState::from_name,
    Metadata: Metadata::read
}

impl<'a> FromSql<'a> for Timestamp {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        i64::from_sql(kind, raw).map(Timestamp)
    }

    fn accepts(kind: &Type) -> bool {
        <i64 as FromSql>::accepts(kind)
    }
}

/// A job's metadata: a JSON array of `[name, value]`.
pub(super) struct Metadata(pub(super) Vec<(String, String)>);

impl Metadata {
    fn read(text: &str) -> Option<Metadata> {
        serde_json::from_str(text).ok().map(Metadata)
    }
}

/// The text that [`Metadata`] reads; none for none.
pub(super) fn metadata_column(metadata: &[(String, String)]) -> Option<String> {
    match metadata.is_empty() {
        true => None,
        // Strings can always be written.
        false => serde_json::to_string(metadata).ok(),
    }
}

/// A number that a column has as an `integer`, and is never below zero.
pub(super) fn u32_at(row: &Row, column: usize) -> Db<u32> {
    row.try_get::<_, i32>(column).map(|number| u32::try_from(number).unwrap_or(0))
}

/// The same where there may be none.
pub(super) fn u32_or_none(row: &Row, column: usize) -> Db<Option<u32>> {
    let number = row.try_get::<_, Option<i32>>(column)?;
    Ok(number.map(|number| u32::try_from(number).unwrap_or(0)))
}

/// The same of a `bigint`.
pub(super) fn u64_at(row: &Row, column: usize) -> Db<u64> {
    row.try_get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or(0))
}

/// A number for an `integer`.
pub(super) fn integer(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// A text for a column: PostgreSQL's have no zero bytes, and those of guests may.
pub(super) fn column(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
