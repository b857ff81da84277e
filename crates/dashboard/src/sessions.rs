//! The browsers that are in. Each has a cookie, and its pages have a key beside it. Their number and their time are bounded.

use std::time::{Duration, Instant};

use http::{HeaderMap, header};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::secret::{NoRandom, Secret};

/// How long a browser stays in that asks nothing.
pub(crate) const UNUSED_FOR: Duration = Duration::from_secs(12 * 3_600);

/// How long a browser stays in, however much it asks.
pub(crate) const LASTS_FOR: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Browsers that are in at once. The one that has asked nothing for longest makes room.
pub(crate) const SESSIONS_MAX: usize = 64;

/// See the module.
#[derive(Default)]
pub(crate) struct Sessions(Vec<Session>);

pub(crate) struct Session {
    cookie: Secret,
    page_key: Secret,
    began: Instant,
    used: Instant,
    /// Cancelled when the session is gone.
    ended: DropGuard,
}

/// The two secrets that a browser is given as it comes in.
pub(crate) struct Keys {
    pub(crate) cookie: String,
    pub(crate) page_key: String,
}

impl Sessions {
    /// One more browser is in.
    pub(crate) fn begin(&mut self, now: Instant) -> Result<Keys, NoRandom> {
        let (cookie, page_key) = (Secret::new()?, Secret::new()?);
        let keys = Keys { cookie: cookie.expose().to_owned(), page_key: page_key.expose().to_owned() };
        self.0.retain(|session| !session.is_over(now));
        if self.0.len() >= SESSIONS_MAX
            && let Some(oldest) = (0..self.0.len()).min_by_key(|at| self.0[*at].used)
        {
            self.0.swap_remove(oldest);
        }
        let ended = CancellationToken::new().drop_guard();
        self.0.push(Session { cookie, page_key, began: now, used: now, ended });
        Ok(keys)
    }

    /// The session of a request's cookie. A server on another port may have set cookies of the same name too.
    pub(crate) fn find(&mut self, headers: &HeaderMap, name: &str, now: Instant) -> Option<&Session> {
        self.0.retain(|session| !session.is_over(now));
        let at = self.place(headers, name)?;
        let session = self.0.get_mut(at)?;
        session.used = now;
        Some(session)
    }

    /// The session of a request's cookie is over.
    pub(crate) fn end(&mut self, headers: &HeaderMap, name: &str) {
        if let Some(at) = self.place(headers, name) {
            self.0.swap_remove(at);
        }
    }

    fn place(&self, headers: &HeaderMap, name: &str) -> Option<usize> {
        let fields = headers.get_all(header::COOKIE).iter().filter_map(|field| field.to_str().ok());
        let pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let given: Vec<&str> = pairs.filter(|(of, _)| *of == name).map(|(_, value)| value).collect();
        self.0.iter().position(|session| given.iter().any(|value| session.cookie.is(value)))
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

impl Session {
    /// Whether a text is the key of its pages.
    pub(crate) fn has_page_key(&self, text: &str) -> bool {
        self.page_key.is(text)
    }

    /// Cancelled when the session is gone: answers that still go on are to end then.
    pub(crate) fn ended(&self) -> CancellationToken {
        self.ended.token().clone()
    }

    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.used) > UNUSED_FOR || now.duration_since(self.began) > LASTS_FOR
    }
}
