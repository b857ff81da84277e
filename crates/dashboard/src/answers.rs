//! Answers that the guard gives itself, and the fields that every answer has.

use std::borrow::Cow;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use crate::assets::{Asset, ENTERED, LOGIN, REFUSED};
use crate::guard::Refusal;
use crate::sessions::Keys;

/// Nothing from elsewhere, nothing inline, no frame around it, and no text that becomes HTML.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const ALWAYS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

const HTML: &str = "text/html; charset=utf-8";

/// A whole answer.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, those of [`secure`] included.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Cow<'static, [u8]>,
}

/// Adds the fields that every answer has at this door, also those of the admin API.
pub fn secure(headers: &mut HeaderMap) {
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

impl Answer {
    fn new(status: StatusCode, media_type: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Answer {
        let mut headers = HeaderMap::new();
        secure(&mut headers);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        Answer { status, headers, body: body.into() }
    }

    pub(crate) fn asset(asset: &'static Asset) -> Answer {
        Answer::new(StatusCode::OK, asset.media_type, asset.text.as_bytes())
    }

    /// The cookie, and a page that keeps its key and goes on to the dashboard.
    pub(crate) fn entered(name: &str, keys: &Keys) -> Answer {
        let page = ENTERED.replace("PAGE_KEY", &keys.page_key);
        let answer = Answer::new(StatusCode::OK, HTML, page.into_bytes());
        answer.with_cookie(name, &keys.cookie, "")
    }

    /// The same, for a page that is there already.
    pub(crate) fn logged_in(name: &str, by_tls: bool, keys: &Keys) -> Answer {
        let body = format!(r#"{{"page_key":"{}"}}"#, keys.page_key);
        let answer = Answer::new(StatusCode::OK, "application/json", body.into_bytes());
        answer.with_cookie(name, &keys.cookie, secure_flag(by_tls))
    }

    /// The cookie is gone, too.
    pub(crate) fn logged_out(name: &str, by_tls: bool) -> Answer {
        let mut answer = Answer::new(StatusCode::NO_CONTENT, "application/json", b"".as_slice());
        answer.headers.remove(header::CONTENT_TYPE);
        answer.with_cookie(name, "", &format!("; Max-Age=0{}", secure_flag(by_tls)))
    }

    fn with_cookie(mut self, name: &str, value: &str, more: &str) -> Answer {
        let set = format!("{name}={value}; HttpOnly; SameSite=Strict; Path=/{more}");
        if let Ok(set) = HeaderValue::from_str(&set) {
            self.headers.insert(header::SET_COOKIE, set);
        }
        self
    }

    pub(crate) fn refused(refusal: Refusal, as_page: bool) -> Answer {
        let (status, title, detail) = refusal.told();
        if as_page && refusal == Refusal::NotLoggedIn {
            return Answer::new(status, HTML, LOGIN.as_bytes());
        }
        if as_page {
            let page = REFUSED.replace("TITLE", title).replace("DETAIL", detail);
            return Answer::new(status, HTML, page.into_bytes());
        }
        // The texts have nothing in them that JSON escapes.
        let problem = format!(
            r#"{{"type":"about:blank","title":"{title}","status":{},"detail":"{detail}"}}"#,
            status.as_u16()
        );
        Answer::new(status, "application/problem+json", problem.into_bytes())
    }

    /// A field, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Browsers send such a cookie by TLS alone.
fn secure_flag(by_tls: bool) -> &'static str {
    if by_tls { "; Secure" } else { "" }
}

impl Refusal {
    fn told(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Refusal::Host => (
                StatusCode::FORBIDDEN,
                "Wrong address",
                "The dashboard is asked by the address that wasmhost has printed, by that of the machine, or by a name that is in its certificate, and by no other name.",
            ),
            Refusal::Origin => (
                StatusCode::FORBIDDEN,
                "Another page",
                "A page of another origin has sent this request. The dashboard answers to itself alone: open its address by hand.",
            ),
            Refusal::Link => (
                StatusCode::FORBIDDEN,
                "This link is used up",
                "A link opens the dashboard once, and within 15 minutes. Press Enter where wasmhost dashboard runs, or run it again, for another one.",
            ),
            Refusal::NotIn => (
                StatusCode::UNAUTHORIZED,
                "Not in this browser",
                "This browser has not opened the dashboard, or not for long: run wasmhost dashboard, and open the link that it prints.",
            ),
            Refusal::NotLoggedIn => (
                StatusCode::UNAUTHORIZED,
                "Not logged in",
                "This browser is not logged in, or not any more: load the page again, and log in with the token.",
            ),
            Refusal::NoPageKey => (
                StatusCode::FORBIDDEN,
                "Not this page",
                "The request lacks the key of the dashboard page: open the dashboard again, by a new link of wasmhost dashboard or by the token.",
            ),
            Refusal::Missing => {
                (StatusCode::NOT_FOUND, "Nothing here", "The dashboard has nothing at this path.")
            }
            Refusal::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "Not this way",
                "The dashboard does not take this method here.",
            ),
            Refusal::NoRandom => (
                StatusCode::SERVICE_UNAVAILABLE,
                "No random numbers",
                "The system gives no random numbers, without which nobody is let in: try again.",
            ),
        }
    }
}
