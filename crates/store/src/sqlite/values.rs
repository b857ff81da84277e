//! How our types look in a column.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::Timestamp;
use crate::jobs::{AttemptEnd, JobId, JobState};
use crate::releases::ReleaseState;
use crate::ticks::TickResult;

impl ToSql for Timestamp {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0))
    }
}

impl FromSql for Timestamp {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        i64::column_result(value).map(Timestamp)
    }
}

impl ToSql for JobId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0))
    }
}

impl FromSql for JobId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        i64::column_result(value).map(JobId)
    }
}

impl ToSql for JobState {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.name()))
    }
}

impl FromSql for JobState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        JobState::from_name(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

impl ToSql for AttemptEnd {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.name()))
    }
}

impl FromSql for AttemptEnd {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        AttemptEnd::from_name(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

impl ToSql for TickResult {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.name()))
    }
}

impl FromSql for TickResult {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        TickResult::from_name(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

impl ToSql for ReleaseState {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.name()))
    }
}

impl FromSql for ReleaseState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        ReleaseState::from_name(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

/// A job's metadata: a JSON array of `[name, value]`, or null for none.
pub(super) struct Metadata(pub(super) Vec<(String, String)>);

impl FromSql for Metadata {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str_or_null()? {
            None => Ok(Metadata(Vec::new())),
            Some(text) => serde_json::from_str(text).map(Metadata).map_err(FromSqlError::other),
        }
    }
}

/// The text that [`Metadata`] reads.
pub(super) fn metadata_column(metadata: &[(String, String)]) -> rusqlite::Result<Option<String>> {
    if metadata.is_empty() {
        return Ok(None);
    }
    let text = serde_json::to_string(metadata);
    text.map(Some).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}
