//! A request that the host refuses by itself has a log line: before any type has to do with it, or since its body
//! doesn't come as it should. Clients cause these lines, and anybody who looks for open doors does: they are for
//! information, and few.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Uri};
use tracing::info;

use super::answer::Failure;
use super::lines::{shown_method, shown_path};
use crate::few_lines::FewLines;

/// Lines in one window, of all reasons together.
const LINES_MAX: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);

/// See the module; one for all connections.
pub(super) struct RefusalLog(Arc<FewLines<Failure>>);

/// The parts of a request that a line tells.
pub(super) struct Asked {
    pub(super) remote: Option<IpAddr>,
    pub(super) method: Method,
    pub(super) uri: Uri,
}

impl RefusalLog {
    pub(super) fn new() -> RefusalLog {
        RefusalLog(FewLines::new(LINES_MAX, WINDOW, |failure: Failure, count| {
            let (status, why) = (failure.status.as_u16(), failure.text);
            info!(status, "{count} more requests within a minute were refused: {why}");
        }))
    }

    /// A request that is answered so.
    pub(super) fn request(&self, failure: Failure, asked: &Asked, request_id: &HeaderValue) {
        if self.0.has_room(failure) {
            let Asked { remote, method, uri } = asked;
            let (status, why) = (failure.status.as_u16(), failure.text);
            let (remote, request_id) = (remote.map(tracing::field::display), request_id.to_str().ok());
            info!(status, remote, request_id, "{} {}: {why}", shown_method(method), shown_path(uri));
        }
    }

    /// A head that came in part, or can't be read: what it asks for isn't known. `detail` says more than the reason.
    pub(super) fn head(&self, failure: Failure, remote: Option<IpAddr>, detail: Option<&hyper::Error>) {
        if self.0.has_room(failure) {
            let (status, why) = (failure.status.as_u16(), failure.text);
            let remote = remote.map(tracing::field::display);
            match detail {
                Some(detail) => info!(status, remote, "{why}: {detail}"),
                None => info!(status, remote, "{why}"),
            }
        }
    }

    /// Says at last how many there were that had no line.
    pub(super) fn close(&self) {
        self.0.end_window();
    }
}
