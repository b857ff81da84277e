use std::cell::OnceCell;
use std::fmt;

use wasip2::http::types::{IncomingRequest, Method as WasiMethod, Scheme};

use super::body::Body;
use super::form::form_pairs;

/// An HTTP request. Parts that aren't asked for aren't fetched from the host.
#[derive(Debug)]
pub struct Request {
    request: IncomingRequest,
    method: OnceCell<Method>,
    target: OnceCell<String>,
}

impl Request {
    pub(super) fn new(request: IncomingRequest) -> Self {
        Self { request, method: OnceCell::new(), target: OnceCell::new() }
    }

    /// The method, such as [`Method::Get`].
    pub fn method(&self) -> &Method {
        self.method.get_or_init(|| self.request.method().into())
    }

    /// The path as the client sent it, nothing decoded or stripped: `/orders/1`.
    pub fn path(&self) -> &str {
        let target = self.target();
        target.split_once('?').map_or(target, |(path, _)| path)
    }

    /// The part after the `?`, as the client sent it.
    pub fn query(&self) -> Option<&str> {
        self.target().split_once('?').map(|(_, query)| query)
    }

    /// The first value that the query gives `name`, decoded: `2` for `quantity` in `?item=tea&quantity=2`.
    pub fn query_value(&self, name: &str) -> Option<String> {
        form_pairs(self.query()?).find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The path and the query together, as the client sent them.
    pub fn target(&self) -> &str {
        self.target.get_or_init(|| self.request.path_with_query().unwrap_or_else(|| "/".to_string()))
    }

    /// The host and port that the client meant: `shop.example:8080`.
    pub fn authority(&self) -> Option<String> {
        self.request.authority()
    }

    /// How the client reached the host: `http` or `https`.
    pub fn scheme(&self) -> Option<String> {
        self.request.scheme().map(|scheme| match scheme {
            Scheme::Http => "http".to_string(),
            Scheme::Https => "https".to_string(),
            Scheme::Other(other) => other,
        })
    }

    /// The first value of a header, whose name may be in any case. Bytes that aren't UTF-8 become `U+FFFD`.
    pub fn header(&self, name: &str) -> Option<String> {
        let value = self.request.headers().get(name).into_iter().next()?;
        Some(
            String::from_utf8(value)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        )
    }

    /// All headers.
    pub fn headers(&self) -> Vec<(String, Vec<u8>)> {
        self.request.headers().entries()
    }

    /// The body, to be read all at once or as it arrives.
    pub fn into_body(self) -> Body {
        Body::of(&self.request)
    }
}

/// The action that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "RFC 9110 says what they mean")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    /// Any other, as the client wrote it.
    Other(String),
}

impl Method {
    /// As it is written in a request: `GET`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other(other) => other,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<WasiMethod> for Method {
    fn from(method: WasiMethod) -> Self {
        match method {
            WasiMethod::Get => Self::Get,
            WasiMethod::Head => Self::Head,
            WasiMethod::Post => Self::Post,
            WasiMethod::Put => Self::Put,
            WasiMethod::Delete => Self::Delete,
            WasiMethod::Connect => Self::Connect,
            WasiMethod::Options => Self::Options,
            WasiMethod::Trace => Self::Trace,
            WasiMethod::Patch => Self::Patch,
            WasiMethod::Other(other) => Self::Other(other),
        }
    }
}
