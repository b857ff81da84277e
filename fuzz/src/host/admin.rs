//! Requests of the admin API.

use serde_json::Value;

use super::served::{End, SERVED, admin_request, body_of};

/// The first byte chooses one of these. The rest of an input is put in the place of `{}`, escaped, or is the body where
/// there is none.
const REQUESTS: [&str; 34] = [
    "GET /v1/formation?{}",
    "GET /v1/releases?{}",
    "GET /v1/releases/{}",
    "GET /v1/queues?{}",
    "GET /v1/jobs?{}",
    "GET /v1/jobs/{}",
    "DELETE /v1/jobs/{}",
    "POST /v1/jobs/{}/retry",
    "POST /v1/jobs/{}/cancel",
    "GET /v1/logs?{}",
    "GET /v1/schedules?{}",
    "GET /v1/schedules/clock/ticks?{}",
    "GET /v1/schedules/{}/ticks",
    "POST /v1/schedules/{}/ticks",
    "POST /v1/schedules/clock/ticks",
    "POST /v1/queues/{}/jobs",
    "POST /v1/queues/{}/pause",
    "POST /v1/queues/{}/resume",
    "POST /v1/queues/mail/jobs",
    "POST /v1/queues/mail/pause",
    "POST /v1/queues/mail/resume",
    "POST /v1/jobs/retry",
    "POST /v1/jobs/cancel",
    "POST /v1/jobs/discard",
    "POST /v1/scale",
    "POST /v1/restart",
    "POST /v1/deploy",
    "POST /v1/rollback",
    "POST /v1/promote",
    "POST /v1/abort",
    "POST /v1/stop",
    "POST /v1/store/backup",
    "{} /v1/formation",
    "GET /v1/events?{}",
];

/// Those who ask for these may follow them, and go at some time.
const FOLLOWED: [&str; 2] = ["/v1/logs", "/v1/events"];

/// Instead of a request: all of it.
const WHOLE: u8 = 0xff;

/// A request: see [`REQUESTS`].
pub fn admin(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    if *which == WHOLE {
        whole(rest);
    } else {
        one(REQUESTS[usize::from(*which) % REQUESTS.len()], rest);
    }
    SERVED.is_well();
}

/// Bytes on a connection.
fn whole(bytes: &[u8]) {
    let backup = b"/v1/store/backup";
    if bytes.windows(backup.len()).any(|window| window == backup) {
        return;
    }
    let answer = SERVED.exchange(&SERVED.admin, &[bytes], End::WhenQuiet);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", answer.escape_ascii());
}

fn one(request: &str, rest: &[u8]) {
    // No file is written: a path that is taken is absolute.
    if request.ends_with("/backup") && rest.iter().any(|byte| matches!(byte, b'/' | b'\\')) {
        return;
    }
    let bytes = match request.split_once("{}") {
        Some((before, behind)) => {
            let escaped: String = rest.iter().map(|byte| escaped(*byte)).collect();
            admin_request(&format!("{before}{escaped}{behind}"), b"")
        }
        None => admin_request(request, rest),
    };
    let follows = FOLLOWED.iter().any(|path| request.contains(path));
    let end = if follows { End::WhenQuiet } else { End::Never };
    let answer = SERVED.exchange(&SERVED.admin, &[&bytes], end);
    is_answer(&answer);
}

/// A byte of a request's line, escaped where it would end it.
fn escaped(byte: u8) -> String {
    match byte {
        b'!'..=b'~' if byte != b'#' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    }
}

/// The host does it, or says in JSON why not. It never fails by itself.
fn is_answer(answer: &[u8]) {
    let shown = answer.escape_ascii();
    assert!(answer.starts_with(b"HTTP/1.1 ") && answer.len() > 12, "{shown}");
    let status = &answer[9..12];
    let body = body_of(answer);
    match status {
        b"200" | b"201" | b"202" => {}
        // The library answers by itself where it can't read the head.
        _ if body.is_empty() && matches!(status, b"400" | b"414" | b"431") => {}
        [b'4', ..] | b"503" => {
            let refusal: Value = serde_json::from_slice(body).unwrap_or_else(|err| panic!("{err}: {shown}"));
            let error = refusal["detail"].as_str().unwrap_or_else(|| panic!("no reason: {shown}"));
            assert!(!error.is_empty(), "an empty reason: {shown}");
            let is_obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
            assert!(!error.chars().any(is_obeyed), "a terminal would obey {error:?}");
        }
        _ => panic!("the host failed: {shown}"),
    }
}
