//! The guard says who may use the dashboard. It decides on a request's head alone, and has no clock and no connections of its own.
//!
//! | danger | answer |
//! | --- | --- |
//! | another user of the machine | nobody is in without a link, whose key nobody can guess, or without the token of the admin API |
//! | a link that somebody finds later | it is good once, and for [`LINK_FOR`] |
//! | a page on the web that sends requests | `Origin` and `Sec-Fetch-Site` must be our own; the cookie is `SameSite=Strict` |
//! | a name on the web that points here (DNS rebinding) | `Host` must be one that we gave out, or that our certificate is for |
//! | a server on another port of this machine, which browsers give our cookie to | the API wants the page's own key too, which only pages of this very origin can read |
//! | a browser that somebody left | a session ends: by its person, when nobody uses it, after [`LASTS_FOR`], and with the token |
//!
//! [`LASTS_FOR`]: crate::sessions::LASTS_FOR

use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderMap, Method, header};
use tokio_util::sync::CancellationToken;

use crate::answers::Answer;
use crate::assets;
use crate::secret::{NoRandom, Secret};
use crate::sessions::{Keys, Sessions};

/// How long a link is good for.
pub(crate) const LINK_FOR: Duration = Duration::from_secs(15 * 60);

/// The path of a link.
const OPEN: &str = "/open";

/// The path at which a browser shows the token, which is compared before the guard is asked.
pub const LOG_IN: &str = "/login";

/// The path at which a browser leaves.
const LOG_OUT: &str = "/logout";

/// The name of each cookie has this in it.
pub const COOKIE: &str = "wasmhost-dashboard-";

/// The field by which a page says its key.
pub(crate) const PAGE_KEY: &str = "wasmhost-page-key";

/// See the module.
pub struct Guard {
    way: Way,
    sessions: Sessions,
}

/// How browsers come in.
enum Way {
    /// By a link, under one of these names, each as `Host` has it.
    Link { hosts: Vec<String>, link: Option<Link> },
    /// By a token, under a name that this knows, which is `Host` without its port.
    Token { is_ours: Box<dyn Fn(&str) -> bool + Send> },
}

struct Link {
    key: Secret,
    made: Instant,
}

/// The verdict on a request.
pub enum Verdict {
    /// Answer so: to a browser that isn't in, or to a request that can't be granted.
    Answer(Answer),
    /// Answer so: the browser is in.
    Page(Answer),
    /// Ask the admin API. The session's end, which ends an answer that still goes on, cancels this.
    Api(CancellationToken),
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `Host` isn't ours.
    Host,
    /// A page of another origin sent it.
    Origin,
    /// The link was used already, or is too old.
    Link,
    /// No cookie, or one that isn't good any more; the way in is a link.
    NotIn,
    /// The same, and the way in is the token.
    NotLoggedIn,
    /// The cookie without the page's key.
    NoPageKey,
    /// There is no such page.
    Missing,
    /// The page doesn't do this.
    Method,
    /// The browser could not be given a key.
    NoRandom,
}

impl Guard {
    /// The guard of a page that is served under these names, each as `Host` has it: `127.0.0.1:4321`.
    pub fn by_link(hosts: Vec<String>) -> Guard {
        Guard { way: Way::Link { hosts, link: None }, sessions: Sessions::default() }
    }

    /// The guard of a page that is for those who have the token of the admin API, and served under the names that
    /// `is_ours` knows: `Host` without its port.
    pub fn by_token(is_ours: impl Fn(&str) -> bool + Send + 'static) -> Guard {
        Guard { way: Way::Token { is_ours: Box::new(is_ours) }, sessions: Sessions::default() }
    }

    /// A new link, as path and query. The one before isn't good any more. There is none where the way in is the token.
    ///
    /// # Errors
    ///
    /// The system has no random numbers.
    pub fn link(&mut self, now: Instant) -> Result<String, NoRandom> {
        let key = Secret::new()?;
        let path = format!("{OPEN}?key={}", key.expose());
        if let Way::Link { link, .. } = &mut self.way {
            *link = Some(Link { key, made: now });
        }
        Ok(path)
    }

    /// Whether there is a link that nobody has used yet.
    pub fn has_link(&self) -> bool {
        matches!(self.way, Way::Link { link: Some(_), .. })
    }

    /// Decides on a request. `by_tls` says whether it came so.
    pub fn judge(&mut self, request: &Parts, by_tls: bool, now: Instant) -> Verdict {
        match self.decide(request, by_tls, now) {
            Ok(verdict) => verdict,
            Err(refusal) => Verdict::Answer(Answer::refused(refusal, wants_page(request))),
        }
    }

    /// Lets a browser in whose request to [`LOG_IN`] has the token. The caller has compared it.
    pub fn log_in(&mut self, request: &Parts, by_tls: bool, now: Instant) -> Answer {
        match self.may_log_in(request).and_then(|()| self.begin(now)) {
            Ok(keys) => Answer::logged_in(&cookie_name(&request.headers, by_tls), by_tls, &keys),
            Err(refusal) => Answer::refused(refusal, false),
        }
    }

    /// Every browser is out.
    pub fn end_all(&mut self) {
        self.sessions = Sessions::default();
    }

    fn may_log_in(&self, request: &Parts) -> Result<(), Refusal> {
        self.check_host(&request.headers)?;
        check_origin(request)?;
        if request.method == Method::POST { Ok(()) } else { Err(Refusal::Method) }
    }

    fn decide(&mut self, request: &Parts, by_tls: bool, now: Instant) -> Result<Verdict, Refusal> {
        self.check_host(&request.headers)?;
        let path = request.uri.path();
        if path == OPEN {
            return self.enter(request, now).map(Verdict::Answer);
        }
        if !is_visit(request) {
            check_origin(request)?;
        }
        let is_read = [Method::GET, Method::HEAD].contains(&request.method);
        let asset = assets::find(path);
        if let Some(asset) = asset.filter(|asset| asset.is_public) {
            return if is_read { Ok(Verdict::Answer(Answer::asset(asset))) } else { Err(Refusal::Method) };
        }
        let cookie = cookie_name(&request.headers, by_tls);
        let Some(session) = self.sessions.find(&request.headers, &cookie, now) else {
            return Err(match self.way {
                Way::Link { .. } => Refusal::NotIn,
                Way::Token { .. } => Refusal::NotLoggedIn,
            });
        };
        if let Some(asset) = asset {
            return if is_read { Ok(Verdict::Page(Answer::asset(asset))) } else { Err(Refusal::Method) };
        }
        let is_log_out = path == LOG_OUT;
        if !is_of_page(path) && !is_log_out {
            return Err(Refusal::Missing);
        }
        if ![Method::GET, Method::POST, Method::DELETE].contains(&request.method)
            || (is_log_out && request.method != Method::POST)
        {
            return Err(Refusal::Method);
        }
        if !session.has_page_key(single(&request.headers, PAGE_KEY).unwrap_or_default()) {
            return Err(Refusal::NoPageKey);
        }
        if is_log_out {
            self.sessions.end(&request.headers, &cookie);
            return Ok(Verdict::Answer(Answer::logged_out(&cookie, by_tls)));
        }
        Ok(Verdict::Api(session.ended()))
    }

    /// A name that isn't ours has been made to point here.
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = single(headers, header::HOST.as_str()).unwrap_or_default();
        let is_ours = match &self.way {
            Way::Link { hosts, .. } => hosts.iter().any(|ours| ours.eq_ignore_ascii_case(host)),
            Way::Token { is_ours } => is_ours(parted(host).0),
        };
        if is_ours { Ok(()) } else { Err(Refusal::Host) }
    }

    /// Lets the one in who has the link. It may have been sent to the person in any program, so that the page from which it
    /// comes doesn't matter; that it comes as a page of its own does.
    fn enter(&mut self, request: &Parts, now: Instant) -> Result<Answer, Refusal> {
        let Way::Link { link, .. } = &mut self.way else { return Err(Refusal::Missing) };
        if request.method != Method::GET {
            return Err(Refusal::Method);
        }
        if single(&request.headers, "sec-fetch-dest").is_some_and(|destination| destination != "document") {
            return Err(Refusal::Origin);
        }
        let key = request.uri.query().and_then(|query| query.strip_prefix("key=")).unwrap_or_default();
        let is_good = |link: &Link| now.duration_since(link.made) <= LINK_FOR && link.key.is(key);
        if !link.as_ref().is_some_and(is_good) {
            return Err(Refusal::Link);
        }
        *link = None;
        let keys = self.begin(now)?;
        Ok(Answer::entered(&cookie_name(&request.headers, false), &keys))
    }

    fn begin(&mut self, now: Instant) -> Result<Keys, Refusal> {
        self.sessions.begin(now).map_err(|_| Refusal::NoRandom)
    }
}

/// A browser says which page a request comes from. A person's own coming is from none.
fn check_origin(request: &Parts) -> Result<(), Refusal> {
    let headers = &request.headers;
    let host = single(headers, header::HOST.as_str()).unwrap_or_default();
    let is_own = |origin: &str| {
        let ours = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        ours.is_some_and(|ours| ours.eq_ignore_ascii_case(host))
    };
    if headers.contains_key(header::ORIGIN) && !single(headers, header::ORIGIN.as_str()).is_some_and(is_own) {
        return Err(Refusal::Origin);
    }
    match single(headers, "sec-fetch-site") {
        None if headers.contains_key("sec-fetch-site") => Err(Refusal::Origin),
        None | Some("same-origin") => Ok(()),
        Some("none") if request.method == Method::GET => Ok(()),
        Some(_) => Err(Refusal::Origin),
    }
}

/// The name of the cookie. A port of its own has a cookie of its own, since browsers send a cookie to every port. The prefix
/// makes browsers refuse one that a page of another name, or without TLS, has set.
fn cookie_name(headers: &HeaderMap, by_tls: bool) -> String {
    let host = single(headers, header::HOST.as_str()).unwrap_or_default();
    let (prefix, default) = if by_tls { ("__Host-", "443") } else { ("", "80") };
    let port = parted(host).1.filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    format!("{prefix}{COOKIE}{}", port.unwrap_or(default))
}

/// `Host` in parts: the name or the address, and the port.
fn parted(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        // A colon within brackets is part of an address.
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

/// Whether a person goes to the page, from wherever that is: a bookmark, a link in a chat. The page is the first thing that
/// a browser shows then, and nobody's frame.
fn is_visit(request: &Parts) -> bool {
    let is = |name, wanted| single(&request.headers, name) == Some(wanted);
    request.method == Method::GET
        && request.uri.path() == "/"
        && is("sec-fetch-mode", "navigate")
        && is("sec-fetch-dest", "document")
}

/// Whether the page asks for this part of the admin API. It needs no copy of the store, and none of what may be a password.
fn is_of_page(path: &str) -> bool {
    let Some(path) = path.strip_prefix("/v1/") else { return false };
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') && !path.contains("..");
    is_plain && !path.starts_with("store/") && !path.ends_with("/source") && path != "stop"
}

/// Whether a person would see the answer.
fn wants_page(request: &Parts) -> bool {
    let accept = single(&request.headers, header::ACCEPT.as_str()).unwrap_or_default();
    request.method == Method::GET && accept.contains("text/html")
}

/// A field that is there once, and is text.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    all.next().filter(|_| all.next().is_none()).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
