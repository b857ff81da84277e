//! `GET /v1/events`: everything that changes, as server-sent events, from now on or from behind an event that the client has.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::mpsc;
use wasmhost_config::shown::one_line;

use super::api::{EventKind, EventView};
use super::{Admin, ApiError, Shared};
use crate::feed::Follower;
use crate::supervisor::unknown_type;

/// How often a client hears something, where nothing happens. It learns so that the host is there, and the host that the
/// client is.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Pieces that wait for a client.
const PIECES_MAX: usize = 4;

/// How much of what somebody sent a message shows, in bytes.
const SHOWN_BYTES: usize = 120;

/// The field by which a client that comes back says which event it had last.
const LAST_EVENT_ID: &str = "last-event-id";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    #[serde(rename = "type")]
    process: Option<String>,
    /// With commas between them.
    kind: Option<String>,
    /// The same as the field `Last-Event-ID`.
    after: Option<String>,
}

/// The events that a client wants.
#[derive(Debug, Default)]
struct Wanted {
    process: Option<String>,
    /// All of them where there is none.
    kinds: Vec<EventKind>,
}

#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "host",
    operation_id = "follow_events",
    summary = "Everything that changes, from now on.",
    params(("type" = Option<String>, Query, description = "Events about this type alone"), ("kind" = Option<String>, Query, description = "These kinds alone, with commas between them"), ("after" = Option<u64>, Query, description = "Go on behind the event with this id"), ("Last-Event-ID" = Option<u64>, Header, description = "The same")),
    responses((status = 200, description = "Server-sent events, whose data is a line of JSON each", body = EventView, content_type = "text/event-stream"))
)]
pub(super) async fn events(
    State(admin): Shared,
    headers: HeaderMap,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(EventsQuery { process, kind, after }) =
        query.map_err(|rejected| ApiError::bad(rejected.body_text()))?;
    let last = match (&after, headers.get(LAST_EVENT_ID)) {
        (Some(after), _) => Some(event_id("after", after)?),
        // A browser sends an empty one where it has had none.
        (None, Some(id)) if !id.is_empty() => Some(event_id("Last-Event-ID", id.to_str().unwrap_or(""))?),
        (None, _) => None,
    };
    let kinds = kind.iter().flat_map(|kinds| kinds.split(',')).map(event_kind).collect::<Result<_, _>>()?;
    if let Some(process) = &process {
        check(&admin, process).await?;
    }
    let (sender, receiver) = mpsc::channel::<Result<Bytes, Infallible>>(PIECES_MAX);
    // All that happens from here on is told, whenever the client reads it.
    let follower = admin.feed.follow(last);
    tokio::spawn(send(follower, Wanted { process, kinds }, sender));
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let head = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((head, Body::from_stream(pieces)).into_response())
}

/// Refuses a type that there isn't.
async fn check(admin: &Admin, process: &str) -> Result<(), ApiError> {
    let types = admin.look().await?;
    let known: Vec<_> = types.iter().map(|view| view.process.as_str()).collect();
    match known.contains(&process) {
        true => Ok(()),
        false => Err(ApiError::missing(unknown_type(&one_line(process, SHOWN_BYTES), &known))),
    }
}

fn event_id(name: &str, text: &str) -> Result<u64, ApiError> {
    text.parse().map_err(|_| {
        let found = one_line(text, SHOWN_BYTES);
        ApiError::bad(format!("{name}: found \"{found}\", expected the id of an event, a number"))
    })
}

fn event_kind(name: &str) -> Result<EventKind, ApiError> {
    EventKind::from_name(name).ok_or_else(|| {
        let found = one_line(name, SHOWN_BYTES);
        let known: Vec<_> = EventKind::ALL.iter().map(|kind| kind.name()).collect();
        ApiError::bad(format!("kind: found \"{found}\", expected one of {}", known.join(", ")))
    })
}

/// Sends events until the host ends, or the client goes away. It begins with the id that a client names to come back before
/// its first event.
async fn send(mut follower: Follower, wanted: Wanted, to: mpsc::Sender<Result<Bytes, Infallible>>) {
    let mut text = alive(&follower);
    loop {
        if !text.is_empty() && to.send(Ok(std::mem::take(&mut text).into())).await.is_err() {
            return;
        }
        let events = tokio::select! {
            events = follower.next() => events,
            () = tokio::time::sleep(ALIVE_EVERY) => {
                text = alive(&follower);
                continue;
            }
            () = to.closed() => return,
        };
        let Some(events) = events else { return };
        events.iter().filter(|event| wanted.has(event)).for_each(|event| encode(event, &mut text));
    }
}

/// Says how far the client has come, and is no event.
fn alive(follower: &Follower) -> String {
    format!("id: {}\n\n", follower.last_id())
}

/// JSON has no line ends in it, so that it is one line of data.
fn encode(event: &Arc<EventView>, text: &mut String) {
    let json = serde_json::to_string(&**event).unwrap_or_default();
    text.push_str(&format!("id: {}\nevent: {}\ndata: {json}\n\n", event.id, event.what.kind().name()));
}

impl Wanted {
    /// Everybody is told of events that they miss.
    fn has(&self, event: &EventView) -> bool {
        let kind = event.what.kind();
        let is_of_type = self.process.is_none() || self.process.as_deref() == event.what.process();
        kind == EventKind::Missed || is_of_type && (self.kinds.is_empty() || self.kinds.contains(&kind))
    }
}

#[cfg(test)]
mod tests {
    use super::super::api::HostEvent;
    use super::*;

    fn event(what: HostEvent) -> EventView {
        EventView { id: 1, time: String::new(), what }
    }

    #[test]
    fn a_filter_leaves_out_what_is_not_of_the_type_or_kind() {
        let count = event(HostEvent::Count { process: "web".into(), from: 1, to: 2 });
        let refusal = event(HostEvent::Refusal { process: "web".into(), tried: "x".into() });
        let missed = event(HostEvent::Missed { count: Some(1) });
        let has = |process: Option<&str>, kinds: &[EventKind]| {
            let wanted = Wanted { process: process.map(str::to_owned), kinds: kinds.into() };
            [&count, &refusal, &missed].map(|event| wanted.has(event))
        };
        assert_eq!(has(None, &[]), [true, true, true]);
        assert_eq!(has(Some("web"), &[]), [true, true, true]);
        assert_eq!(has(Some("worker"), &[]), [false, false, true]);
        assert_eq!(has(Some("web"), &[EventKind::Refusal]), [false, true, true]);
        assert_eq!(has(None, &[EventKind::Job, EventKind::Count]), [true, false, true]);
    }

    #[test]
    fn a_text_with_line_ends_stays_one_line_of_data() {
        let mut text = String::new();
        encode(
            &Arc::new(event(HostEvent::Refusal { process: "web".into(), tried: "a\n\nb\r".into() })),
            &mut text,
        );
        let lines: Vec<&str> = text.split('\n').collect();
        assert_eq!((lines.len(), lines[0], lines[1]), (5, "id: 1", "event: refusal"));
        assert!(lines[2].starts_with("data: {\"id\":1,") && !text.contains('\r'), "{text}");
    }
}
