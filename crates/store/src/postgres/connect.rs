//! Connecting: one address after another, each within a bound, and the settings that every connection has.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{AsyncMessage, Config, Connection};
use tokio_postgres_rustls::MakeRustlsConnect;
use wasmhost_config::{PostgresAddress, PostgresSession, PostgresUrl};

use super::errors::{self, Place};
use super::session::Session;
use super::tls;
use crate::StoreError;

/// How long one address has to answer, login and TLS included.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How long a peer that is gone without a word stays unnoticed.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The oldest server, as `server_version_num` has it.
const SERVER_MIN: i32 = 150_000;

/// Settings of a session. Ends by the server come after those of ours, and are for a host that is gone. Queues change faster
/// than statistics are taken: nothing but their indexes is of use, and a plan holds for all values.
const SETTINGS: &str = "
    SET statement_timeout = 12000; SET idle_in_transaction_session_timeout = 12000; SET lock_timeout = 6000;
    SET default_transaction_isolation = 'read committed'; SET synchronous_commit = on; SET jit = off;
    SET client_min_messages = warning; SET timezone = 'UTC'; SET plan_cache_mode = force_generic_plan;
    SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;";

/// A new connection, and what drives it: it ends as the connection does, and has what the server says unasked.
pub(super) struct Connected {
    pub(super) session: Session,
    pub(super) driver: Driver,
}

pub(super) type Driver = Connection<
    tokio_postgres::Socket,
    <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<tokio_postgres::Socket>>::Stream,
>;

/// How to connect.
pub(super) struct Connector {
    url: PostgresUrl,
    place: Place,
    mode: SslMode,
    tls: MakeRustlsConnect,
}

impl Connector {
    pub(super) fn new(url: PostgresUrl) -> Result<Connector, StoreError> {
        let (mode, tls) = tls::connector(&url.tls)?;
        let place = Place::of(&url);
        Ok(Connector { url, place, mode, tls })
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Connects to the first address that takes it. The error is that of the last one.
    pub(super) async fn connect(&self) -> Result<Connected, StoreError> {
        let mut last = None;
        for address in &self.url.addresses {
            match timeout(CONNECT_MAX, self.connect_to(address)).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => last = Some(error),
                Err(_) => {
                    let seconds = CONNECT_MAX.as_secs();
                    last = Some(StoreError::Open(format!(
                        "{} can't be opened: {address} gave no answer within {seconds} s: check that the server runs, and \
                         that [store] url is right",
                        self.place
                    )));
                }
            }
        }
        Err(last.unwrap_or_else(|| StoreError::Open(format!("{} has no address", self.place))))
    }

    async fn connect_to(&self, address: &PostgresAddress) -> Result<Connected, StoreError> {
        let failed = |error: tokio_postgres::Error| errors::opening_failed(&self.place, &error);
        let mut config = Config::new();
        config
            .host(&address.host)
            .port(address.port)
            .user(&self.url.user)
            .dbname(&self.url.database)
            .application_name("wasmhost")
            .ssl_mode(self.mode)
            .connect_timeout(CONNECT_MAX)
            .tcp_user_timeout(SILENCE_MAX)
            .keepalives_idle(SILENCE_MAX / 2)
            .keepalives_interval(SILENCE_MAX / 4)
            .keepalives_retries(2)
            .target_session_attrs(match self.url.session {
                PostgresSession::ReadWrite => TargetSessionAttrs::ReadWrite,
                PostgresSession::Any => TargetSessionAttrs::Any,
            });
        if let Some(password) = &self.url.password {
            config.password(password.reveal());
        }
        let (client, mut driver) = config.connect(self.tls.clone()).await.map_err(failed)?;
        let session = Session::new(client, self.place.clone());
        let path = errors::identifier(&self.place.schema);
        let settings = format!("{SETTINGS} SET search_path = {path}");
        // The driver isn't spawned yet, since each caller wants something else of it.
        tokio::select! {
            set = session.run(&settings) => set.map_err(failed)?,
            error = drive_until_error(&mut driver) => return Err(failed(error)),
        }
        Ok(Connected { session, driver })
    }
}

/// Drives a connection, whose notices nobody wants.
async fn drive_until_error(driver: &mut Driver) -> tokio_postgres::Error {
    loop {
        match std::future::poll_fn(|cx| driver.poll_message(cx)).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return error,
            // The statement under way has the error.
            None => std::future::pending().await,
        }
    }
}

/// Drives a connection until it ends, and hands on notifications.
pub(super) async fn drive(mut driver: Driver, notified: impl Fn(tokio_postgres::Notification)) {
    while let Some(Ok(message)) = std::future::poll_fn(|cx| driver.poll_message(cx)).await {
        if let AsyncMessage::Notification(notification) = message {
            notified(notification);
        }
    }
}

/// Refuses a server that can't be a store, and warns of one that may lose what it said was stored.
pub(super) async fn check_server(session: &Session) -> Result<(), StoreError> {
    let place = session.place();
    let failed = |error: tokio_postgres::Error| errors::opening_failed(place, &error);
    let rows = session
        .query(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version'), current_setting('fsync'),
                    current_setting('full_page_writes'), current_setting('server_encoding')",
            &[],
        )
        .await
        .map_err(failed)?;
    let Some(row) = rows.first() else {
        return Err(StoreError::Open(format!("{place} says nothing of itself")));
    };
    let get = |column: usize| row.try_get::<_, String>(column).map_err(failed);
    let (number, version) = (row.try_get::<_, i32>(0).map_err(failed)?, get(1)?);
    if number < SERVER_MIN {
        return Err(StoreError::Open(format!(
            "{place} is PostgreSQL {version}, expected 15 or later: upgrade the server, or point [store] url elsewhere"
        )));
    }
    if get(4)? != "UTF8" {
        return Err(StoreError::Open(format!(
            "{place} has the encoding {}, expected UTF8: make the database by `createdb -E UTF8 -T template0 {}`",
            get(4)?,
            place.database
        )));
    }
    if get(2)? == "off" || get(3)? == "off" {
        tracing::warn!(
            "{place} runs with fsync or full_page_writes off: a crash of its machine can lose or damage everything in it; \
             turn both on in postgresql.conf"
        );
    }
    Ok(())
}

/// Refuses a pooler that gives each transaction another session: settings, prepared statements and LISTEN are a session's.
pub(super) async fn check_no_pooler(one: &Session, other: &Session) -> Result<(), StoreError> {
    let place = one.place();
    let failed = |error: tokio_postgres::Error| errors::opening_failed(place, &error);
    // Two connections have two backends, unless a pooler lends both the one that is free.
    for _ in 0..3 {
        let mut pids = Vec::new();
        for session in [one, other] {
            let rows = session.query("SELECT pg_backend_pid()", &[]).await.map_err(failed)?;
            pids.push(rows.first().map(|row| row.try_get::<_, i32>(0)).transpose().map_err(failed)?);
        }
        if pids[0] == pids[1] {
            return Err(StoreError::Open(format!(
                "{place} is behind a pooler that pools transactions (PgBouncer's pool_mode = transaction), and a host needs \
                 sessions of its own, three of them: name the server itself in [store] url, or a pool with pool_mode = session"
            )));
        }
    }
    Ok(())
}
