//! A request, as a log line shows it. A client may send a method and a path as long as a head may be.

use std::borrow::Cow;

use http::{Method, Uri};
use wasmhost_config::shown;

/// The longest method that is registered has 17 bytes.
const METHOD_BYTES_MAX: usize = 32;

pub(super) fn shown_method(method: &Method) -> Cow<'_, str> {
    shown::one_line(method.as_str(), METHOD_BYTES_MAX)
}

pub(super) fn shown_path(uri: &Uri) -> Cow<'_, str> {
    shown::one_line(uri.path(), shown::NAME_BYTES_MAX)
}
