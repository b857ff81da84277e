//! Error codes of `wasi:http`, with which a guest may answer instead of a response, as text.

use wasmhost_config::shown::MESSAGE_BYTES_MAX;
use wasmtime_wasi_http::Error;

/// The code by its name in the WIT, with what the guest says of it, cut where that is long.
pub(super) fn error_code(error: &Error) -> String {
    let debug = format!("{error:?}");
    let name = debug.split([' ', '(', '{']).next().unwrap_or_default();
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.push(letter.to_ascii_lowercase());
    }
    match error {
        Error::InternalError(None) => {}
        Error::InternalError(Some(message)) => text += &format!(": {message}"),
        _ if debug.len() == name.len() => {}
        other => text += &format!(": {other}"),
    }
    text.truncate(text.floor_char_boundary(MESSAGE_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_are_named_as_in_the_wit() {
        let told = |error: Error| error_code(&error);
        assert_eq!(told(Error::HttpRequestDenied), "http-request-denied");
        assert_eq!(told(Error::InternalError(None)), "internal-error");
        assert_eq!(told(Error::InternalError(Some("no tea".into()))), "internal-error: no tea");
        assert!(told(Error::HttpResponseBodySize(Some(3))).starts_with("http-response-body-size: "));
        assert_eq!(told(Error::InternalError(Some("ö".repeat(9_999)))).len(), MESSAGE_BYTES_MAX);
    }
}
