//! One connection to the server, and the statements that were prepared on it.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

use super::errors::Place;

/// The result of something that the server was asked.
pub(super) type Db<T> = Result<T, Error>;

/// The parameters of a statement.
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// See the module. Several statements may be under way: they are sent one behind another, without waiting for answers.
pub(super) struct Session {
    client: Client,
    place: Place,
    /// By their texts, of which there are a bounded number.
    statements: Mutex<HashMap<String, Statement>>,
}

impl Session {
    pub(super) fn new(client: Client, place: Place) -> Session {
        Session { client, place, statements: Mutex::default() }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// The rows that a statement gives.
    pub(super) async fn query(&self, sql: &str, params: Params<'_>) -> Db<Vec<Row>> {
        let statement = self.prepared(sql).await?;
        self.client.query(&statement, params).await
    }

    /// How many rows a statement changes.
    pub(super) async fn execute(&self, sql: &str, params: Params<'_>) -> Db<u64> {
        let statement = self.prepared(sql).await?;
        self.client.execute(&statement, params).await
    }

    /// One or several statements without parameters.
    pub(super) async fn run(&self, sql: &str) -> Db<()> {
        self.client.batch_execute(sql).await
    }

    /// Prepares a statement, so that the next time it is sent at once.
    pub(super) async fn prepare(&self, sql: &str) -> Db<()> {
        self.prepared(sql).await.map(drop)
    }

    async fn prepared(&self, sql: &str) -> Db<Statement> {
        if let Some(statement) = self.known().get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.known().insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Statement>> {
        self.statements.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}
