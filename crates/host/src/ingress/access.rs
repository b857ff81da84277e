//! The access log: one line for each request, when its answer is through, on standard error.
//!
//! Lines go to a bounded queue ([`crate::output`]). When standard error doesn't take them fast enough they are dropped and
//! counted: no request waits for its line.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Method, StatusCode, Version};
use wasmhost_config::{AccessLog, shown};

use super::lines::shown_method;
use crate::output::{Source, Stream};
use crate::pool::Slot;
use crate::traces::Scope;

/// A path is cut after so many bytes. One of a head that is as long as a head may be has 64 KiB.
const PATH_BYTES_MAX: usize = 4 << 10;

/// See the module.
#[derive(Clone)]
pub(crate) struct Access {
    lines: Source,
    json: bool,
}

/// The facts that are known of a request when it begins.
pub(super) struct Begun {
    pub(super) remote: Option<IpAddr>,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) version: Version,
}

/// Who served a request.
#[derive(Default)]
pub(super) struct Served {
    /// The type, where no instance of it was there.
    pub(super) process: Option<Arc<str>>,
    /// The last instance, if there were several.
    pub(super) slot: Option<Arc<Slot>>,
    /// Its place in a trace, where traces are on.
    pub(super) trace: Option<Arc<Scope>>,
}

impl Served {
    fn instance(&self) -> Option<String> {
        self.slot.as_ref().map(|slot| slot.name.to_string())
    }

    fn process(&self) -> Option<&str> {
        self.slot.as_ref().map(|slot| &*slot.name.process).or(self.process.as_deref())
    }
}

/// A line to be: written when it is dropped, which is when the answer is through, or its client has gone.
pub(super) struct Entry {
    access: Access,
    start: Instant,
    begun: Begun,
    request_id: HeaderValue,
    served: Served,
    /// None where the client went away before there was an answer.
    status: Option<StatusCode>,
    code: Option<HeaderValue>,
    bytes: u64,
}

impl Access {
    /// None where nothing is to be logged.
    pub(crate) fn new(format: AccessLog, stderr: &Stream) -> Option<Access> {
        let json = match format {
            AccessLog::Off => return None,
            AccessLog::Text => false,
            AccessLog::Json => true,
        };
        Some(Access { lines: stderr.source("the access log".into()), json })
    }

    pub(super) fn begin(&self, begun: Begun, request_id: HeaderValue) -> Entry {
        Entry {
            access: self.clone(),
            start: Instant::now(),
            begun,
            request_id,
            served: Served::default(),
            status: None,
            code: None,
            bytes: 0,
        }
    }
}

impl Entry {
    /// There is an answer.
    pub(super) fn answered(&mut self, status: StatusCode, code: Option<HeaderValue>, served: Served) {
        self.status = Some(status);
        self.code = code;
        self.served = served;
    }

    /// A piece of the answer passes.
    pub(super) fn pass(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    fn text(&self, out: &mut String) {
        let Begun { remote, method, path, version } = &self.begun;
        let (method, path) = (shown_method(method), shown::one_line(path, PATH_BYTES_MAX));
        // Writing to a String doesn't fail.
        let _ = write!(out, "{:.3} ", jiff::Timestamp::now());
        let _ = match remote {
            Some(remote) => write!(out, "{remote} "),
            None => write!(out, "- "),
        };
        let _ =
            write!(out, "{method} {path} {version:?} {} {}B {:.1}ms", self.status(), self.bytes, self.ms());
        let process = self.served.process().map(str::to_owned);
        for (name, value) in [("type", process), ("instance", self.served.instance())] {
            if let Some(value) = value {
                let _ = write!(out, " {name}={value}");
            }
        }
        let _ = write!(out, " request_id={}", self.id());
        if let Some(code) = self.code() {
            let _ = write!(out, " code={code}");
        }
        out.push('\n');
    }

    fn json(&self, out: &mut String) {
        #[derive(serde::Serialize)]
        struct Line<'a> {
            time: String,
            remote: Option<IpAddr>,
            method: &'a str,
            path: &'a str,
            version: String,
            status: u16,
            bytes: u64,
            duration_ms: f64,
            #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
            process: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            instance: Option<String>,
            request_id: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            code: Option<&'a str>,
        }
        let line = Line {
            time: format!("{:.3}", jiff::Timestamp::now()),
            remote: self.begun.remote,
            method: &shown_method(&self.begun.method),
            path: shown::cut(&self.begun.path, PATH_BYTES_MAX),
            version: format!("{:?}", self.begun.version),
            status: self.status(),
            bytes: self.bytes,
            duration_ms: (self.ms() * 1000.0).round() / 1000.0,
            process: self.served.process(),
            instance: self.served.instance(),
            request_id: self.id(),
            code: self.code(),
        };
        // The serialization of strings and numbers can't fail.
        out.push_str(&shown::json(&serde_json::to_string(&line).unwrap_or_default()));
        out.push('\n');
    }

    fn id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }

    /// 499, as nginx says it, where the client went away first.
    fn status(&self) -> u16 {
        self.status.map_or(499, |status| status.as_u16())
    }

    fn ms(&self) -> f64 {
        self.start.elapsed().as_secs_f64() * 1e3
    }

    fn code(&self) -> Option<&str> {
        self.code.as_ref().and_then(|code| code.to_str().ok())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut line = String::with_capacity(256);
        match self.access.json {
            true => self.json(&mut line),
            false => self.text(&mut line),
        }
        self.access.lines.put(line);
    }
}
