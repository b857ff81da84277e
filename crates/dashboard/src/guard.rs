//! The guard says who may use the dashboard. It decides on a request's head alone, and has no clock and no connections of its own.
//!
//! | danger | answer |
//! | --- | --- |
//! | another user of the machine | nobody is in without a link, whose key nobody can guess |
//! | a link that somebody finds later | it is good once, and for [`LINK_FOR`] |
//! | a page on the web that sends requests | `Origin` and `Sec-Fetch-Site` must be our own; the cookie is `SameSite=Strict` |
//! | a name on the web that points here (DNS rebinding) | `Host` must be one that we gave out |
//! | a server on another port of this machine, which browsers give our cookie to | the API wants the page's own key too, which only pages of this very origin can read |

use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderMap, Method, header};

use crate::answers::Answer;
use crate::assets::{self, Asset};
use crate::secret::{NoRandom, Secret};

/// How long a link is good for.
pub(crate) const LINK_FOR: Duration = Duration::from_secs(15 * 60);

/// How long a browser stays in that asks nothing.
const UNUSED_FOR: Duration = Duration::from_secs(12 * 3_600);

/// Browsers that are in at once. The one that has asked nothing for longest makes room.
const SESSIONS_MAX: usize = 64;

/// The path of a link.
const OPEN: &str = "/open";

/// The field by which a page says its key.
pub(crate) const PAGE_KEY: &str = "wasmhost-page-key";

/// See the module.
pub struct Guard {
    /// The names by which browsers may ask, as `Host` has them.
    hosts: Vec<String>,
    cookie: String,
    link: Option<Link>,
    sessions: Vec<Session>,
}

struct Link {
    key: Secret,
    made: Instant,
}

struct Session {
    cookie: Secret,
    page_key: Secret,
    used: Instant,
}

/// The verdict on a request.
pub enum Verdict {
    /// Answer so.
    Answer(Answer),
    /// Ask the admin API.
    Api,
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
    /// No cookie, or one that isn't good any more.
    NotIn,
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
    /// The guard of a page that is served under these names, each as `Host` has it: `127.0.0.1:4321`. `id` tells its cookie from
    /// those of others on the same machine.
    pub fn new(hosts: Vec<String>, id: &str) -> Guard {
        let cookie = format!("wasmhost-dashboard-{id}");
        Guard { hosts, cookie, link: None, sessions: vec![] }
    }

    /// A new link, as path and query. The one before isn't good any more.
    ///
    /// # Errors
    ///
    /// The system has no random numbers.
    pub fn link(&mut self, now: Instant) -> Result<String, NoRandom> {
        let key = Secret::new()?;
        let link = format!("{OPEN}?key={}", key.expose());
        self.link = Some(Link { key, made: now });
        Ok(link)
    }

    /// Whether there is a link that nobody has used yet.
    pub fn has_link(&self) -> bool {
        self.link.is_some()
    }

    /// Decides on a request.
    pub fn judge(&mut self, request: &Parts, now: Instant) -> Verdict {
        match self.decide(request, now) {
            Ok(verdict) => verdict,
            Err(refusal) => Verdict::Answer(Answer::refused(refusal, wants_page(request))),
        }
    }

    fn decide(&mut self, request: &Parts, now: Instant) -> Result<Verdict, Refusal> {
        self.check_host(&request.headers)?;
        let path = request.uri.path();
        if path == OPEN {
            return self.enter(request, now).map(Verdict::Answer);
        }
        self.check_origin(request)?;
        let is_read = [Method::GET, Method::HEAD].contains(&request.method);
        let asset = assets::find(path);
        if let Some(asset) = asset.filter(|asset| asset.is_public) {
            return if is_read { Ok(answer(asset)) } else { Err(Refusal::Method) };
        }
        let session = self.session(&request.headers, now).ok_or(Refusal::NotIn)?;
        if let Some(asset) = asset {
            return if is_read { Ok(answer(asset)) } else { Err(Refusal::Method) };
        }
        if !is_of_page(path) {
            return Err(Refusal::Missing);
        }
        if ![Method::GET, Method::POST, Method::DELETE].contains(&request.method) {
            return Err(Refusal::Method);
        }
        let page_key = single(&request.headers, PAGE_KEY).unwrap_or_default();
        match session.page_key.is(page_key) {
            true => Ok(Verdict::Api),
            false => Err(Refusal::NoPageKey),
        }
    }

    /// A name that isn't ours has been made to point here.
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = single(headers, header::HOST.as_str()).unwrap_or_default();
        match self.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(host)) {
            true => Ok(()),
            false => Err(Refusal::Host),
        }
    }

    /// A browser says which page a request comes from. A person's own coming is from none.
    fn check_origin(&self, request: &Parts) -> Result<(), Refusal> {
        let headers = &request.headers;
        let host = single(headers, header::HOST.as_str()).unwrap_or_default();
        let is_own = |origin: &str| {
            let ours = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            ours.is_some_and(|ours| ours.eq_ignore_ascii_case(host))
        };
        if headers.contains_key(header::ORIGIN)
            && !single(headers, header::ORIGIN.as_str()).is_some_and(is_own)
        {
            return Err(Refusal::Origin);
        }
        match single(headers, "sec-fetch-site") {
            None if headers.contains_key("sec-fetch-site") => Err(Refusal::Origin),
            None | Some("same-origin") => Ok(()),
            Some("none") if request.method == Method::GET => Ok(()),
            Some(_) => Err(Refusal::Origin),
        }
    }

    /// Lets the one in who has the link. It may have been sent to the person in any program, so that the page from which it
    /// comes doesn't matter; that it comes as a page of its own does.
    fn enter(&mut self, request: &Parts, now: Instant) -> Result<Answer, Refusal> {
        if request.method != Method::GET {
            return Err(Refusal::Method);
        }
        if single(&request.headers, "sec-fetch-dest").is_some_and(|destination| destination != "document") {
            return Err(Refusal::Origin);
        }
        let key = request.uri.query().and_then(|query| query.strip_prefix("key=")).unwrap_or_default();
        let is_good = |link: &Link| now.duration_since(link.made) <= LINK_FOR && link.key.is(key);
        if !self.link.as_ref().is_some_and(is_good) {
            return Err(Refusal::Link);
        }
        self.link = None;
        let (cookie, page_key) =
            Secret::new().and_then(|cookie| Ok((cookie, Secret::new()?))).map_err(|_| Refusal::NoRandom)?;
        let answer = Answer::entered(&self.cookie, cookie.expose(), page_key.expose());
        self.sessions.retain(|session| !session.is_over(now));
        if self.sessions.len() >= SESSIONS_MAX
            && let Some(oldest) = (0..self.sessions.len()).min_by_key(|at| self.sessions[*at].used)
        {
            self.sessions.swap_remove(oldest);
        }
        self.sessions.push(Session { cookie, page_key, used: now });
        Ok(answer)
    }

    /// The session of the request's cookie.
    fn session(&mut self, headers: &HeaderMap, now: Instant) -> Option<&Session> {
        let fields = headers.get_all(header::COOKIE).iter().filter_map(|field| field.to_str().ok());
        let pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
        // A server on another port may have set cookies of this name too.
        let given: Vec<&str> =
            pairs.filter(|(name, _)| *name == self.cookie).map(|(_, value)| value).collect();
        let is_meant = |session: &&mut Session| {
            !session.is_over(now) && given.iter().any(|value| session.cookie.is(value))
        };
        let session = self.sessions.iter_mut().find(is_meant)?;
        session.used = now;
        Some(session)
    }
}

impl Session {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.used) > UNUSED_FOR
    }
}

fn answer(asset: &'static Asset) -> Verdict {
    Verdict::Answer(Answer::asset(asset))
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
