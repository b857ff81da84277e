//! The dashboard for a browser that comes by `[admin]`. It is the page that `wasmhost dashboard` serves, and the same guard
//! says who may have it; the way in is the token instead of a link.
//!
//! ```text
//! GET / -> the page that asks for the token -> POST /login with it -> a cookie, and the page's key -> the dashboard
//! ```
//!
//! A wrong token is treated as that of any request. Sessions belong to the token that was shown, and go with it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, Method, header};
use axum::response::{IntoResponse, Response};
use wasmhost_dashboard::{Answer, COOKIE, Guard, LOG_IN, Until, Verdict, secure};

use super::door::{Key, Visitor, closing, skip_body};
use crate::ingress::Certificates;

/// Fields that browsers send, and programs don't.
const OF_BROWSERS: [HeaderName; 2] = [header::ORIGIN, HeaderName::from_static("sec-fetch-site")];

/// The guard of those who show one token.
pub(super) fn guard(certificates: Arc<ArcSwapOption<Certificates>>) -> Guard {
    Guard::by_token(move |name| is_ours(name, certificates.load().as_deref()))
}

/// Whether no page on the web can have this name point here. Nobody points an address elsewhere, `localhost` is the
/// browser's own machine, and a certificate has the names that somebody has vouched for.
fn is_ours(name: &str, certificates: Option<&Certificates>) -> bool {
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || certificates.is_some_and(|certificates| certificates.are_for(name))
}

/// Whether a request without a token is a browser's, who is told in a page what it lacks.
pub(super) fn sends(request: &Request) -> bool {
    let says = |name, part| {
        let fields = request.headers().get_all(name).iter();
        fields.filter_map(|field| field.to_str().ok()).any(|field| field.contains(part))
    };
    says(header::ACCEPT, "text/html")
        || says(header::COOKIE, COOKIE)
        || OF_BROWSERS.iter().any(|name| request.headers().contains_key(name))
}

/// Whether a request shows the token for a browser.
pub(super) fn logs_in(request: &Request) -> bool {
    request.method() == Method::POST && request.uri().path() == LOG_IN
}

impl Visitor {
    /// Lets a browser in. The request has the right token.
    pub(super) fn log_in(&self, key: &Key, request: Request) -> Response {
        let (head, _) = request.into_parts();
        whole(lock(&key.guard).log_in(&head, self.by_tls, Instant::now()))
    }

    /// Answers a browser's request, which has no token.
    pub(super) async fn answer_browser(&self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let key = self.door.key.load_full();
        let verdict = key.as_ref().map(|key| lock(&key.guard).judge(&head, self.by_tls, Instant::now()));
        let (key, verdict) = match key.zip(verdict) {
            Some((key, Verdict::Answer(answer))) => {
                drop(key);
                skip_body(Request::from_parts(head, body)).await;
                return closing(whole(answer));
            }
            Some(judged) => judged,
            // The place closes.
            None => return closing(axum::http::StatusCode::SERVICE_UNAVAILABLE.into_response()),
        };
        if let Err(full) = self.come_in(key) {
            return closing(full.into_response());
        }
        match verdict {
            Verdict::Answer(answer) | Verdict::Page(answer) => whole(answer),
            Verdict::Api(ended) => {
                let mut response = (self.door.api)(Request::from_parts(head, body)).await;
                secure(response.headers_mut());
                response.map(|body| Body::new(Until::new(body, ended)))
            }
        }
    }
}

fn whole(answer: Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body.into_owned()));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

/// The guard. No code that runs under the lock panics.
pub(super) fn lock(guard: &Mutex<Guard>) -> MutexGuard<'_, Guard> {
    guard.lock().unwrap_or_else(|poison| poison.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_ours_where_nobody_else_can_have_it_point_here() {
        for name in ["127.0.0.1", "10.1.2.3", "[::1]", "localhost", "LOCALHOST"] {
            assert!(is_ours(name, None), "{name}");
        }
        for name in ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[::1", "admin"]
        {
            assert!(!is_ours(name, None), "{name}");
        }
    }
}
