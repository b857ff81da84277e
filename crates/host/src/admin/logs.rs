//! The admin API's part for logs: guests' lines, or the host's own.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Level;
use wasmhost_config::shown::one_line;

use super::api::{HOST_TARGET, LogLine};
use super::{Admin, ApiError, Shared};
use crate::logs::{Following, HostLine, Line, Logs, Told, Wanted};
use crate::supervisor::{Target, unknown_type};

/// Lines to begin with, where nobody says how many and from when on.
const LINES_DEFAULT: usize = 100;

/// Bytes that are sent together, as far as there are so many; and how many such pieces wait for a client.
const PIECE_BYTES: usize = 64 << 10;
const PIECES_MAX: usize = 4;

/// How much of what somebody sent a message shows, in bytes.
const SHOWN_BYTES: usize = 120;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogsQuery {
    #[serde(default)]
    follow: bool,
    n: Option<usize>,
    target: Option<String>,
    since: Option<String>,
    until: Option<String>,
    level: Option<String>,
}

/// From when to when lines were written. Times as lines have them, which sort as they are.
#[derive(Default)]
struct Span {
    since: Option<String>,
    until: Option<String>,
}

/// A request for lines, as it was understood.
pub(super) struct LogsRequest {
    of: Origin,
    count: usize,
    follow: bool,
    span: Span,
}

/// Whose lines are wanted.
enum Origin {
    /// The host's own, of this level and worse ones.
    Host(Level),
    /// Those of a type's instances, or of all.
    Guests(Option<Target>),
}

#[utoipa::path(
    get,
    path = "/v1/logs",
    tag = "host",
    operation_id = "get_logs",
    summary = "Guests' lines, or the host's own.",
    params(("target" = Option<String>, Query, description = "A type, an instance, or `host`"), ("n" = Option<u64>, Query, description = "How many of the last lines to begin with"), ("since" = Option<String>, Query, description = "From this time on, RFC 3339"), ("until" = Option<String>, Query, description = "Up to this time, RFC 3339"), ("follow" = Option<bool>, Query, description = "Go on with what is written from now on"), ("level" = Option<String>, Query, description = "Of the host's own lines these and worse ones: error, warn, info, debug, trace")),
    responses((status = 200, description = "A line of JSON for each line. Those of the host have `level`, `message` and other fields instead of `instance`, `stream` and `line`", body = LogLine, content_type = "application/x-ndjson"))
)]
pub(super) async fn logs(
    State(admin): Shared,
    query: Result<Query<LogsQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let request = LogsRequest::read(query)?;
    if let Some(target) = request.target() {
        check(&admin, target).await?;
    }
    Ok(request.answer(&admin.logs))
}

impl LogsRequest {
    pub(super) fn read(query: Result<Query<LogsQuery>, QueryRejection>) -> Result<LogsRequest, ApiError> {
        let Query(query) = query.map_err(|rejected| ApiError::bad(rejected.body_text()))?;
        let span = Span::read(&query)?;
        let default = if span.since.is_some() || span.until.is_some() { usize::MAX } else { LINES_DEFAULT };
        let (count, follow) = (query.n.unwrap_or(default), query.follow);
        let of = match (query.target.as_deref(), query.level.as_deref()) {
            (Some(HOST_TARGET), level_of) => Origin::Host(level_of.map_or(Ok(Level::TRACE), level)?),
            (_, Some(_)) => {
                return Err(ApiError::bad(format!(
                    "level: guests' lines have none; it is for the host's own, `target={HOST_TARGET}`"
                )));
            }
            (target, None) => Origin::Guests(target.map(Target::parse).transpose().map_err(ApiError::bad)?),
        };
        Ok(LogsRequest { of, count, follow, span })
    }

    /// The type or instance whose lines are wanted, if it isn't all of them.
    pub(super) fn target(&self) -> Option<&Target> {
        match &self.of {
            Origin::Guests(target) => target.as_ref(),
            Origin::Host(_) => None,
        }
    }

    /// The lines, and those that follow where that is wanted.
    pub(super) fn answer(self, logs: &Logs) -> Response {
        let LogsRequest { of, count, follow, span } = self;
        match of {
            Origin::Host(level) => {
                let wanted: Wanted<HostLine> =
                    Box::new(move |line| line.level <= level && span.has(&line.time));
                if !follow {
                    return response(logs.last_of_host(count, &wanted), None);
                }
                let (last, following) = logs.follow_host(count, wanted);
                response(last, Some((following, logs.follower())))
            }
            Origin::Guests(target) => {
                let wanted: Wanted<LogLine> = Box::new(move |line| {
                    target.as_ref().is_none_or(|target| target.names(&line.instance)) && span.has(&line.time)
                });
                if !follow {
                    return response(logs.last(count, wanted), None);
                }
                let (last, following) = logs.follow(count, wanted);
                response(last, Some((following, logs.follower())))
            }
        }
    }
}

/// Refuses a type that there isn't, and an instance that there isn't and never was.
async fn check(admin: &Admin, target: &Target) -> Result<(), ApiError> {
    let types = admin.look().await?;
    let known: Vec<_> = types.iter().map(|view| view.process.as_str()).collect();
    if !known.contains(&target.process.as_str()) {
        return Err(ApiError::missing(unknown_type(&target.process, &known)));
    }
    let name = target.to_string();
    let is_there = || types.iter().flat_map(|view| &view.instances).any(|instance| instance.name == name);
    // One that is gone may have left lines.
    let has_written = || !admin.logs.last(1, |line| line.instance == name).is_empty();
    if target.index.is_none() || is_there() || has_written() {
        return Ok(());
    }
    Err(ApiError::missing(format!(
        "there is no instance {name}, and none of that name has written a line; `wasmhost ps` lists those that there are"
    )))
}

/// Lines, and those that follow.
fn response<T: Line>(last: Vec<Arc<T>>, following: Option<(Following<T>, TaskTrackerToken)>) -> Response {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, Infallible>>(PIECES_MAX);
    let (following, token) = following.unzip();
    tokio::spawn(send(last, following, sender));
    // The token goes with the last piece.
    let stream = futures_util::stream::unfold((receiver, token), |(mut receiver, token)| async {
        receiver.recv().await.map(|piece| (piece, (receiver, token)))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response()
}

/// Sends all of it; or, to a client that goes away, what it takes.
async fn send<T: Line>(
    last: Vec<Arc<T>>,
    following: Option<Following<T>>,
    to: mpsc::Sender<Result<Bytes, Infallible>>,
) {
    let mut text = String::new();
    let mut last = last.into_iter().peekable();
    while let Some(line) = last.next() {
        encode(&*line, &mut text);
        let is_full = text.len() >= PIECE_BYTES || last.peek().is_none();
        if is_full && to.send(Ok(std::mem::take(&mut text).into())).await.is_err() {
            return;
        }
    }
    let Some(following) = following else { return };
    loop {
        let told = tokio::select! {
            told = following.next() => told,
            () = to.closed() => return,
        };
        let Some(told) = told else { return };
        add(told, &mut text);
        while text.len() < PIECE_BYTES
            && let Some(told) = following.try_next()
        {
            add(told, &mut text);
        }
        if to.send(Ok(std::mem::take(&mut text).into())).await.is_err() {
            return;
        }
    }
}

fn add<T: Line>(told: Told<T>, text: &mut String) {
    match told {
        Told::Line(line) => encode(&*line, text),
        Told::Missed(count) => encode(&T::missed(count), text),
    }
}

fn encode(line: &impl Line, text: &mut String) {
    line.encode(text);
    text.push('\n');
}

impl Span {
    fn read(query: &LogsQuery) -> Result<Span, ApiError> {
        let since = query.since.as_deref().map(|text| time("since", text)).transpose()?;
        let until = query.until.as_deref().map(|text| time("until", text)).transpose()?;
        if query.follow && until.is_some() {
            return Err(ApiError::bad("`until` and `follow` exclude each other".into()));
        }
        if let (Some(since), Some(until)) = (&since, &until)
            && since > until
        {
            return Err(ApiError::bad(format!("`since` ({since}) is after `until` ({until})")));
        }
        Ok(Span { since, until })
    }

    fn has(&self, time: &str) -> bool {
        self.since.as_deref().is_none_or(|since| time >= since)
            && self.until.as_deref().is_none_or(|until| time <= until)
    }
}

/// A time as lines have it: UTC, with milliseconds.
fn time(name: &str, text: &str) -> Result<String, ApiError> {
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(format!("{time:.3}")),
        Err(_) => {
            let found = one_line(text, SHOWN_BYTES);
            Err(ApiError::bad(format!(
                "{name}: found \"{found}\", expected a time as RFC 3339 has it, such as \"2026-01-31T12:00:00Z\""
            )))
        }
    }
}

fn level(text: &str) -> Result<Level, ApiError> {
    text.parse().map_err(|_| {
        let found = one_line(text, SHOWN_BYTES);
        ApiError::bad(format!("level: found \"{found}\", expected error, warn, info, debug or trace"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(since: Option<&str>, until: Option<&str>) -> Result<Span, String> {
        let [since, until] = [since, until].map(|text| text.map(str::to_owned));
        let query = LogsQuery { follow: false, n: None, target: None, since, until, level: None };
        Span::read(&query).map_err(|err| err.message)
    }

    #[test]
    fn a_span_has_its_ends() {
        let span = span(Some("2026-01-31T13:00:00+01:00"), Some("2026-01-31T12:00:01.5Z")).unwrap();
        let had = |time: &str| span.has(&format!("2026-01-31T{time}Z"));
        assert!(had("12:00:00.000") && had("12:00:01.500"));
        assert!(!had("11:59:59.999") && !had("12:00:01.501"));
        assert!(Span::default().has("2026-01-31T12:00:00.000Z"));
    }

    #[test]
    fn a_span_that_is_none_is_refused() {
        let since = "2026-01-31T12:00:00Z";
        assert!(span(Some("noon"), None).err().unwrap().starts_with("since: found \"noon\", expected"));
        assert!(span(Some(since), Some("2026-01-31T11:00:00Z")).err().unwrap().contains("is after"));
        assert!(span(Some(since), Some(since)).is_ok());
    }
}
