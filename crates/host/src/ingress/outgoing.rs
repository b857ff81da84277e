//! An answer's framing: which content and which length go out, by the grammar of HTTP and not by what a guest wishes
//! (RFC 9110, sections 6.4.1, 8.6, 9.3.2 and 15).
//!
//! | answer | content | `Content-Length` |
//! | --- | --- | --- |
//! | to HEAD | none | the guest's, or that of the content that was left out |
//! | 204 | none | none |
//! | 205 | none | 0 |
//! | 304 | none | the guest's |
//! | any other | the guest's | the content's |

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};
use hyper::body::Body;

use super::answer::WASMHOST_ERROR;

/// The part of an answer's body that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// All of it.
    Whole,
    /// So many bytes: fewer are an error, and more are left out.
    Bytes(u64),
    /// Nothing.
    None,
    /// Nothing, though hyper has to believe in so many bytes: it would leave their length out otherwise.
    NoneOf(u64),
}

/// Why a guest's answer can't be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsendable {
    /// It isn't the status of an answer.
    Status(StatusCode),
    /// `Content-Length` is no number, or is two.
    Length,
    /// The content has another length than the head says.
    Differs { said: u64, has: u64 },
}

impl fmt::Display for Unsendable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsendable::Status(status) => {
                write!(
                    f,
                    "the guest answered with the status {}, expected one from 200 to 599",
                    status.as_u16()
                )
            }
            Unsendable::Length => f.write_str("the guest's Content-Length isn't one number"),
            Unsendable::Differs { said, has } => {
                write!(f, "the guest's answer has {has} bytes, and its Content-Length says {said}")
            }
        }
    }
}

/// Looks at a guest's answer, and removes the headers that aren't a guest's to send: those for one hop alone, and the
/// host's own.
pub(super) fn check<B: Body>(response: &mut Response<B>, method: &Method) -> Result<(), Unsendable> {
    let status = response.status();
    if !(200..600).contains(&status.as_u16()) {
        return Err(Unsendable::Status(status));
    }
    let has_length = remove_hop_by_hop(response.headers_mut());
    if !has_length {
        return Ok(());
    }
    let Some(said) = length(response.headers())? else { return Ok(()) };
    match response.body().size_hint().exact() {
        Some(has) if has != said && has_content(method, status) => Err(Unsendable::Differs { said, has }),
        _ => Ok(()),
    }
}

/// Puts the length of an answer in order, and says what of its content is sent.
pub(super) fn frame<B: Body>(response: &mut Response<B>, method: &Method, version: Version) -> Content {
    let status = response.status();
    let said = length(response.headers()).unwrap_or_default();
    let has = response.body().size_hint().exact();
    if has_content(method, status) {
        return match said {
            Some(said) if has != Some(said) => Content::Bytes(said),
            _ => Content::Whole,
        };
    }
    match status {
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT => {
            // hyper writes the zero of a 205.
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        StatusCode::NOT_MODIFIED => match said {
            Some(said) if method != Method::HEAD && version < Version::HTTP_2 => {
                return Content::NoneOf(said);
            }
            _ => {}
        },
        _ => {
            if let (None, Some(has @ 1..)) = (said, has) {
                response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(has));
            }
        }
    }
    Content::None
}

/// Whether an answer has content that its client gets to see.
fn has_content(method: &Method, status: StatusCode) -> bool {
    let without = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED];
    method != Method::HEAD && !without.contains(&status)
}

/// The one length that a head says.
fn length(headers: &HeaderMap) -> Result<Option<u64>, Unsendable> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter().map(|value| {
        let text = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        text.and_then(|text| text.parse::<u64>().ok()).ok_or(Unsendable::Length)
    });
    let first = lengths.next().transpose()?;
    match lengths.all(|other| other.ok() == first) {
        true => Ok(first),
        false => Err(Unsendable::Length),
    }
}

/// Says whether there is a `Content-Length`.
fn remove_hop_by_hop(headers: &mut HeaderMap) -> bool {
    let (mut has_length, mut to_remove) = (false, Vec::new());
    for name in headers.keys() {
        match name.as_str() {
            "content-length" => has_length = true,
            "connection" => {
                to_remove.extend(named_by(headers.get_all(header::CONNECTION)));
                to_remove.push(name.clone());
            }
            "keep-alive" | "proxy-connection" | "te" | "transfer-encoding" | "upgrade" => {
                to_remove.push(name.clone())
            }
            _ if *name == WASMHOST_ERROR => to_remove.push(name.clone()),
            _ => {}
        }
    }
    for name in to_remove {
        has_length &= name != header::CONTENT_LENGTH;
        headers.remove(name);
    }
    has_length
}

/// The headers that `Connection` names.
fn named_by(lines: http::header::GetAll<'_, HeaderValue>) -> Vec<HeaderName> {
    let names = lines.into_iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;
    use std::convert::Infallible;

    use super::*;

    type NoFrames = futures_util::stream::Empty<Result<Frame<Bytes>, Infallible>>;

    fn answer<B>(status: u16, headers: &[(&'static str, &str)], body: B) -> Response<B> {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response.body(body).unwrap()
    }

    fn full(bytes: usize) -> Full<Bytes> {
        Full::new(Bytes::from(vec![b'x'; bytes]))
    }

    /// A body whose length nobody knows.
    fn streamed() -> StreamBody<NoFrames> {
        StreamBody::new(futures_util::stream::empty())
    }

    /// The content that is sent, and the length that the head says then.
    fn framed<B: Body>(
        method: Method,
        version: Version,
        mut response: Response<B>,
    ) -> (Content, Option<String>) {
        check(&mut response, &method).unwrap();
        let content = frame(&mut response, &method, version);
        let length = response.headers().get("content-length").map(|value| value.to_str().unwrap().to_owned());
        (content, length)
    }

    const VERSIONS: [Version; 3] = [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2];

    #[test]
    fn an_answer_to_head_has_a_length_and_no_content() {
        let six = Some("6".to_owned());
        for version in VERSIONS {
            let of = |response| framed(Method::HEAD, version, response);
            assert_eq!(of(answer(200, &[("content-length", "6")], full(0))), (Content::None, six.clone()));
            assert_eq!(of(answer(200, &[], full(6))), (Content::None, six.clone()));
            assert_eq!(of(answer(200, &[], full(0))), (Content::None, None));
            assert_eq!(of(answer(304, &[("content-length", "6")], full(0))), (Content::None, six.clone()));
            assert_eq!(of(answer(204, &[("content-length", "6")], full(6))), (Content::None, None));
            assert_eq!(framed(Method::HEAD, version, answer(200, &[], streamed())), (Content::None, None));
        }
    }

    #[test]
    fn an_answer_without_content_has_none() {
        let length = [("content-length", "4")];
        for version in VERSIONS {
            let of = |status, headers: &[_], bytes| {
                framed(Method::GET, version, answer(status, headers, full(bytes)))
            };
            for status in [204, 205] {
                assert_eq!(of(status, &length, 4), (Content::None, None), "{status}");
                assert_eq!(of(status, &[], 4), (Content::None, None), "{status}");
            }
            assert_eq!(of(304, &[], 4), (Content::None, None));
            let content = if version == Version::HTTP_2 { Content::None } else { Content::NoneOf(4) };
            assert_eq!(of(304, &length, 0), (content, Some("4".to_owned())));
        }
    }

    #[test]
    fn other_content_is_as_long_as_the_head_says() {
        let (length, four) = ([("content-length", "4")], Some("4".to_owned()));
        for version in VERSIONS {
            assert_eq!(framed(Method::GET, version, answer(200, &[], full(4))), (Content::Whole, None));
            assert_eq!(
                framed(Method::POST, version, answer(404, &length, full(4))),
                (Content::Whole, four.clone())
            );
            let content = framed(Method::GET, version, answer(200, &length, streamed()));
            assert_eq!(content, (Content::Bytes(4), four.clone()));
        }
        let refused =
            |headers: &[_], bytes| check(&mut answer(200, headers, full(bytes)), &Method::GET).err();
        assert_eq!(refused(&length, 3), Some(Unsendable::Differs { said: 4, has: 3 }));
        assert_eq!(refused(&[("content-length", "4"), ("content-length", "5")], 4), Some(Unsendable::Length));
        assert_eq!(refused(&[("content-length", "4"), ("content-length", "4")], 4), None);
        for wrong in ["+4", "", "4, 4", "99999999999999999999"] {
            assert_eq!(refused(&[("content-length", wrong)], 4), Some(Unsendable::Length), "{wrong:?}");
        }
    }

    #[test]
    fn a_status_is_one_of_an_answer() {
        for status in 100..1000 {
            let checked = check(&mut answer(status, &[], full(0)), &Method::GET);
            let expected = match StatusCode::from_u16(status).unwrap() {
                status if (200..=599).contains(&status.as_u16()) => Ok(()),
                status => Err(Unsendable::Status(status)),
            };
            assert_eq!(checked, expected);
        }
    }

    #[test]
    fn what_is_not_a_guests_to_send_is_removed() {
        let mut response = answer(
            200,
            &[
                ("connection", "close, X-Hop"),
                ("x-hop", "1"),
                ("keep-alive", "timeout=5"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("proxy-connection", "close"),
                ("te", "trailers"),
                ("wasmhost-error", "H11"),
                ("x-end", "2"),
            ],
            full(0),
        );
        check(&mut response, &Method::GET).unwrap();
        assert_eq!(response.headers().keys().collect::<Vec<_>>(), ["x-end"]);
    }
}
