//! The door of what is served by TCP: who shows the token is let in, and others are refused.
//!
//! ```text
//! stranger -> (the right token, or a browser's cookie) let in, until the connection ends or the token is replaced
//!          -> (none, or a wrong one) refused: 401, and the connection closes
//! ```
//!
//! A browser shows the token once, and has a cookie from then on: see `browser`.
//!
//! A wrong token is answered after a delay. Few of them wait at a time, and those past them are refused at once, so that
//! waiting costs the host nothing. A right token is never delayed.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use wasmhost_dashboard::Guard;

use super::super::problem::ApiError;
use super::browser;
use super::strangers::{Bounds, Entered, Strangers};
use super::token::{AdminToken, Expected};
use crate::few_lines::FewLines;
use crate::ingress::Certificates;

/// Connections that have shown nothing yet.
const STRANGERS: Bounds =
    Bounds { inside_max: 128, inside_of_address_max: 64, waiting_max: 512, waiting_of_address_max: 384 };

/// How long a connection may take to show the token, its wait included.
const STRANGER_MAX: Duration = Duration::from_secs(20);

/// How long it has for that where others wait, and how often it is looked whether they do.
const MOMENT: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Connections that have shown the token. Each `logs -f` is one.
const LET_IN_MAX: usize = 256;

/// How long the answer to a wrong token takes, and how many wait for theirs.
const DELAY: Duration = Duration::from_secs(1);
const DELAYED_MAX: usize = 16;

/// How long connections go on that have shown a token which isn't the right one any more: the deploy that has changed it
/// may be told of on one of them.
const REPLACED_MAX: Duration = Duration::from_secs(30);

/// A refused request's body is read for so long, and so far, since a client may send all of it before it reads the answer.
const BODY_READ_MAX: Duration = Duration::from_secs(1);
const BODY_BYTES_READ_MAX: usize = 1 << 20;

/// Lines about wrong tokens in a while.
const LINES_MAX: u32 = 5;
const LINES_WINDOW: Duration = Duration::from_secs(60);

const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"wasmhost\"");
const CHALLENGE_WRONG: HeaderValue =
    HeaderValue::from_static("Bearer realm=\"wasmhost\", error=\"invalid_token\"");

/// The admin API, as it is served at the socket.
pub(crate) type Api = Arc<dyn Fn(Request) -> BoxFuture<'static, Response> + Send + Sync>;

/// See the module.
pub(super) struct Door {
    pub(super) api: Api,
    /// None where there is no place.
    pub(super) key: ArcSwapOption<Key>,
    /// Those that are served, for the names in them.
    certificates: Arc<ArcSwapOption<Certificates>>,
    strangers: Mutex<Strangers<Option<IpAddr>, CancellationToken>>,
    room: Arc<Semaphore>,
    delays: Semaphore,
    lines: Arc<FewLines<()>>,
}

/// The token that lets in, for as long as it does.
pub(super) struct Key {
    expected: Expected,
    replaced: CancellationToken,
    /// The browsers that have shown it.
    pub(super) guard: Mutex<Guard>,
}

/// A request's token.
enum Shown {
    Right(Arc<Key>),
    Wrong,
    Nothing,
}

/// One connection.
pub(super) struct Visitor {
    pub(super) door: Arc<Door>,
    address: Option<IpAddr>,
    pub(super) by_tls: bool,
    number: u64,
    /// Cancelled when its wait is over.
    inside: CancellationToken,
    let_in: OnceLock<LetIn>,
    /// Cancelled when it is let in.
    enters: CancellationToken,
}

struct LetIn {
    key: Arc<Key>,
    _place: OwnedSemaphorePermit,
}

impl Door {
    pub(super) fn new(api: Api) -> Arc<Door> {
        let more = |(), count| warn!("{count} more requests to the admin API had a wrong token");
        Arc::new(Door {
            api,
            key: ArcSwapOption::empty(),
            certificates: Arc::default(),
            strangers: Mutex::new(Strangers::new(STRANGERS)),
            room: Arc::new(Semaphore::new(LET_IN_MAX)),
            delays: Semaphore::new(DELAYED_MAX),
            lines: FewLines::new(LINES_MAX, LINES_WINDOW, more),
        })
    }

    /// From now on these are the certificates that are served.
    pub(super) fn is_named_by(&self, certificates: Option<Arc<Certificates>>) {
        self.certificates.store(certificates);
    }

    /// From now on this token lets in, and no other. Browsers that have shown the one from before are out.
    pub(super) fn expect(&self, token: &AdminToken) {
        let expected = token.expected();
        if self.key.load().as_ref().is_some_and(|key| key.expected == expected) {
            return;
        }
        let guard = Mutex::new(browser::guard(self.certificates.clone()));
        self.change(Some(Arc::new(Key { expected, replaced: CancellationToken::new(), guard })));
    }

    /// No token lets in.
    pub(super) fn lock(&self) {
        self.change(None);
    }

    fn change(&self, key: Option<Arc<Key>>) {
        if let Some(before) = self.key.swap(key) {
            before.replaced.cancel();
            browser::lock(&before.guard).end_all();
        }
    }

    fn look_at(&self, fields: &HeaderMap) -> Shown {
        let mut all = fields.get_all(header::AUTHORIZATION).iter();
        let Some(field) = all.next() else { return Shown::Nothing };
        let token = if all.next().is_none() { bearer(field.as_bytes()) } else { None };
        match (token, self.key.load_full()) {
            (Some(token), Some(key)) if key.expected.is(token) => Shown::Right(key),
            _ => Shown::Wrong,
        }
    }

    fn strangers(&self) -> MutexGuard<'_, Strangers<Option<IpAddr>, CancellationToken>> {
        // No code that runs under the lock panics.
        self.strangers.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

/// The token of `Bearer TOKEN`.
fn bearer(field: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = field.split_at_checked("Bearer".len())?;
    let token = rest.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer") && rest.first() == Some(&b' ') && !token.is_empty())
        .then_some(token)
}

impl Visitor {
    /// Somebody comes, from this address if it has one. None where too many wait already.
    pub(super) fn enter(door: &Arc<Door>, address: Option<IpAddr>, by_tls: bool) -> Option<Visitor> {
        let inside = CancellationToken::new();
        let number = match door.strangers().enter(address.map(client), inside.clone()) {
            Entered::Inside(number) => {
                inside.cancel();
                number
            }
            Entered::Waits(number) => number,
            Entered::Refused => return None,
        };
        let (let_in, enters) = (OnceLock::new(), CancellationToken::new());
        Some(Visitor { door: door.clone(), address, by_tls, number, inside, let_in, enters })
    }

    /// Waits until it is this one's turn.
    pub(super) async fn turn(&self) {
        self.inside.cancelled().await;
    }

    /// Ends when the connection has to: it is late, others wait for its place, or its token was replaced.
    pub(super) async fn has_to_go(&self) {
        tokio::select! {
            biased;
            () = self.enters.cancelled() => {}
            () = tokio::time::sleep(STRANGER_MAX) => return,
            () = self.is_in_the_way() => return,
        }
        match self.let_in.get() {
            Some(let_in) => let_in.key.replaced.cancelled().await,
            None => return,
        }
        tokio::time::sleep(REPLACED_MAX).await;
    }

    /// Ends when its moment is over and somebody waits for its place.
    async fn is_in_the_way(&self) {
        self.inside.cancelled().await;
        tokio::time::sleep(MOMENT).await;
        while !self.door.strangers().is_awaited(self.number) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn is_no_stranger_any_more(&self) {
        let told = self.door.strangers().leave(self.number);
        told.iter().for_each(CancellationToken::cancel);
    }

    /// Answers a request. A client that shows the token has the API, at all paths but that at which a browser does.
    pub(super) async fn answer(&self, request: Request) -> Response {
        match self.door.look_at(request.headers()) {
            Shown::Right(key) => match self.come_in(key.clone()) {
                Ok(()) if browser::logs_in(&request) => self.log_in(&key, request),
                Ok(()) => (self.door.api)(request).await,
                Err(full) => closing(full.into_response()),
            },
            Shown::Nothing if browser::sends(&request) => self.answer_browser(request).await,
            Shown::Nothing => {
                skip_body(request).await;
                let message = "this needs the token of [admin], in the field `Authorization: Bearer TOKEN`";
                refusal(StatusCode::UNAUTHORIZED, message, Some(CHALLENGE))
            }
            Shown::Wrong => self.refuse_wrong(request).await,
        }
    }

    pub(super) fn come_in(&self, key: Arc<Key>) -> Result<(), ApiError> {
        if self.let_in.get().is_some() {
            return Ok(());
        }
        let full = || {
            ApiError::unavailable(format!(
                "{LET_IN_MAX} connections to the admin API are open, which is as many as may be: try again later"
            ))
        };
        let place = self.door.room.clone().try_acquire_owned().map_err(|_| full())?;
        self.is_no_stranger_any_more();
        let _ = self.let_in.set(LetIn { key, _place: place });
        self.enters.cancel();
        Ok(())
    }

    async fn refuse_wrong(&self, request: Request) -> Response {
        if self.door.lines.has_room(()) {
            match self.address {
                Some(address) => warn!("a request to the admin API from {address} had a wrong token"),
                None => warn!("a request to the admin API had a wrong token"),
            }
        }
        let Ok(_delayed) = self.door.delays.try_acquire() else {
            let message = "too many requests with wrong tokens come at present: try again later";
            return refusal(StatusCode::TOO_MANY_REQUESTS, message, None);
        };
        let skipped = skip_body(request);
        tokio::join!(skipped, tokio::time::sleep(DELAY));
        refusal(StatusCode::UNAUTHORIZED, "the token is not the one of [admin]", Some(CHALLENGE_WRONG))
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.is_no_stranger_any_more();
    }
}

/// A client of IPv6 has a /64 of addresses.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

fn refusal(status: StatusCode, message: &str, challenge: Option<HeaderValue>) -> Response {
    let mut response = ApiError::new(status, message.to_owned()).into_response();
    if let Some(challenge) = challenge {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    closing(response)
}

pub(super) fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Reads some of a body that nobody wants.
pub(super) async fn skip_body(request: Request) {
    // A client that asks first whether it may send it is told no.
    if request.headers().contains_key(header::EXPECT) {
        return;
    }
    let read = async |mut body: Body| {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await
            && bytes < BODY_BYTES_READ_MAX
        {
            bytes += frame.data_ref().map_or(0, |data| data.len());
        }
    };
    let _ = tokio::time::timeout(BODY_READ_MAX, read(request.into_body())).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_behind_its_scheme() {
        for (field, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("BEARER a=", Some("a=")),
            ("Bearer", None),
            ("Bearer ", None),
            ("Bearerabc", None),
            ("Basic abc", None),
            ("", None),
        ] {
            assert_eq!(bearer(field.as_bytes()), token.map(str::as_bytes), "{field}");
        }
    }
}
