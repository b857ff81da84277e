//! PostgreSQL's errors in words that say what to do. Passwords are in none of them.

use std::error::Error as _;
use std::fmt;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;
use wasmhost_config::PostgresUrl;

use crate::StoreError;

/// The store's name in messages: without the password.
#[derive(Debug, Clone)]
pub(super) struct Place {
    shown: String,
    pub(super) user: String,
    pub(super) database: String,
    pub(super) schema: String,
}

impl Place {
    pub(super) fn of(url: &PostgresUrl) -> Place {
        Place {
            shown: url.to_string(),
            user: url.user.clone(),
            database: url.database.clone(),
            schema: url.schema.clone(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// The state of the transaction that an error came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The connection is of no use any more, or the server can't be written.
    Away,
    /// Others were in the way: the same may go well at the next try.
    Again,
    /// The disk is full.
    Full,
    /// The statement is at fault.
    Wrong,
}

pub(super) fn kind(error: &Error) -> Kind {
    let Some(code) = error.code() else {
        // All others are told apart by their class: these are of the connection, or of a value that couldn't be sent.
        return if error.is_closed() || error.source().is_some_and(|cause| cause.is::<std::io::Error>()) {
            Kind::Away
        } else {
            Kind::Wrong
        };
    };
    match code.code() {
        // Serialization, deadlock, a lock that was not had in time, a statement that took too long.
        "40001" | "40P01" | "55P03" | "57014" => Kind::Again,
        "53100" => Kind::Full,
        // A standby, or one that became one.
        "25006" => Kind::Away,
        code if code.starts_with("08") || code.starts_with("57") || code.starts_with("53") => Kind::Away,
        _ => Kind::Wrong,
    }
}

/// The whole text of an error, with what PostgreSQL says of it.
pub(super) fn text(error: &Error) -> String {
    match error.as_db_error() {
        Some(told) => match told.detail() {
            Some(detail) => format!("{} ({detail})", told.message()),
            None => told.message().to_owned(),
        },
        None => match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}

/// The error of an operation.
pub(super) fn from_postgres(place: &Place, error: &Error) -> StoreError {
    match kind(error) {
        Kind::Away => away(place, &text(error)),
        Kind::Again => StoreError::Unavailable(format!(
            "{place} is busy, and nothing was stored: {}; look for long transactions in pg_stat_activity",
            text(error)
        )),
        Kind::Full => StoreError::Full(format!(
            "the disk of {place} is full, and nothing was stored: free some space on it ({})",
            text(error)
        )),
        Kind::Wrong => StoreError::Backend(format!("the store failed: {}", text(error))),
    }
}

pub(super) fn away(place: &Place, why: &str) -> StoreError {
    let shown = place.to_string();
    match why.starts_with(&shown) {
        true => StoreError::Unavailable(why.to_owned()),
        false => StoreError::Unavailable(format!("{shown} can't be reached, and is tried again: {why}")),
    }
}

/// The error of a commit that was sent and not answered.
pub(super) fn unknown(place: &Place) -> StoreError {
    StoreError::Unavailable(format!(
        "{place} went away while it was being written, and nobody knows yet whether it was stored"
    ))
}

/// The error where the store can't be opened, and what to do.
pub(super) fn opening_failed(place: &Place, error: &Error) -> StoreError {
    let said = text(error);
    let (user, database, schema) = (&place.user, &place.database, &place.schema);
    let code = error.code();
    let is = |state: &SqlState| code == Some(state);
    let hint = if is(&SqlState::INVALID_PASSWORD) || is(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION) {
        format!("check the user and password in [store] url, and pg_hba.conf for \"{user}\"")
    } else if is(&SqlState::INVALID_CATALOG_NAME) {
        format!("make it by `createdb {database}`, or name another one in [store] url")
    } else if is(&SqlState::INSUFFICIENT_PRIVILEGE) {
        format!(
            "as an owner of the database, make the schema: CREATE SCHEMA {} AUTHORIZATION {}",
            identifier(schema),
            identifier(user)
        )
    } else if is(&SqlState::TOO_MANY_CONNECTIONS) {
        "a host needs three connections: raise max_connections, or end others".to_owned()
    } else if code.is_none() && said.contains("password missing") {
        "the server asks for a password: give one in [store] url".to_owned()
    } else {
        "check that the server runs, and that [store] url is right".to_owned()
    };
    StoreError::Open(format!("{place} can't be opened: {said}: {hint}"))
}

/// A name as SQL takes it.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
