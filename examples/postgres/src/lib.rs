//! A guestbook whose entries are in PostgreSQL.

mod client;
mod connection;
mod settings;

use std::cell::RefCell;

use client::{Client, Error, Row};
use settings::Settings;
use wasmhost_guest::http::{Method, Request, Response};

wasmhost_guest::http!(handle);

/// The longest entry, in bytes.
const ENTRY_BYTES_MAX: usize = 4 << 10;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS entries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    text text NOT NULL)";

thread_local! {
    /// The connection is kept between requests, as long as the host keeps the instance.
    static KEPT: RefCell<Option<Client>> = const { RefCell::new(None) };
}

fn handle(request: Request) -> Result<Response, Error> {
    Ok(match (request.method(), request.path()) {
        (Method::Get, "/") => Response::text("Hello, world!\n"),
        (Method::Get, "/entries") => entries()?,
        (Method::Post, "/entries") => match request.into_body().read_all(ENTRY_BYTES_MAX) {
            Ok(body) => add(&String::from_utf8_lossy(&body))?,
            Err(_) => Response::text("an entry is at most 4 KiB long\n").status(413),
        },
        _ => Response::text("There is nothing here\n").status(404),
    })
}

/// The last entries, the newest first.
fn entries() -> Result<Response, Error> {
    let rows = query("SELECT id, text FROM entries ORDER BY id DESC LIMIT 100", &[])?;
    let column = |row: &Row, at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    let lines: String = rows.iter().map(|row| format!("{}: {}\n", column(row, 0), column(row, 1))).collect();
    Ok(Response::text(lines))
}

fn add(text: &str) -> Result<Response, Error> {
    // A parameter is never taken for SQL.
    match query("INSERT INTO entries (text) VALUES ($1) RETURNING id", &[text]) {
        Ok(rows) => {
            let id = rows.first().and_then(|row| row.first().cloned().flatten()).unwrap_or_default();
            Ok(Response::text(format!("{id}\n")).status(201))
        }
        // PostgreSQL's text can't hold a zero byte.
        Err(Error::Refused { code, .. }) if code == "22021" => {
            Ok(Response::text("an entry is text\n").status(400))
        }
        Err(err) => Err(err),
    }
}

/// Asks by the connection that is kept, or by a new one.
fn query(sql: &str, parameters: &[&str]) -> Result<Vec<Row>, Error> {
    KEPT.with_borrow_mut(|kept| {
        let mut client = match kept.take() {
            Some(client) if client.is_alive() => client,
            _ => connect()?,
        };
        let answer = client.query(sql, parameters);
        // After an answer, also one that refuses, the connection is as good as before.
        if matches!(answer, Ok(_) | Err(Error::Refused { .. })) {
            *kept = Some(client);
        }
        answer
    })
}

fn connect() -> Result<Client, Error> {
    let url = std::env::var("DATABASE_URL").map_err(|_| Error::Settings("DATABASE_URL isn't set".into()))?;
    let mut client = Client::connect(&Settings::parse(&url)?)?;
    client.query(TABLE, &[])?;
    Ok(client)
}
