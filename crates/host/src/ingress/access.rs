//! The access log: one line for each request, when its answer is through, on standard error.
//!
//! Lines are gathered in a bounded buffer that a thread of its own writes. When standard error doesn't take them fast
//! enough they are dropped and counted: no request waits for its line.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use http::{HeaderValue, Method, StatusCode, Version};
use wasmhost_config::AccessLog;

use crate::pool::Slot;

/// Bytes that wait to be written.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// See the module.
pub(crate) struct Access {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    json: bool,
    inner: Mutex<Inner>,
    filled: Condvar,
}

#[derive(Default)]
struct Inner {
    text: String,
    dropped: u64,
    closed: bool,
}

/// What is known of a request when it begins.
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
    shared: Arc<Shared>,
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
    /// Starts the thread that writes; none where nothing is to be logged.
    pub(crate) fn start(format: AccessLog) -> std::io::Result<Option<Access>> {
        let json = match format {
            AccessLog::Off => return Ok(None),
            AccessLog::Text => false,
            AccessLog::Json => true,
        };
        let shared = Arc::new(Shared { json, inner: Mutex::default(), filled: Condvar::new() });
        let writer = {
            let shared = shared.clone();
            std::thread::Builder::new().name("wasmhost-access".into()).spawn(move || shared.write())?
        };
        Ok(Some(Access { shared, writer: Some(writer) }))
    }

    pub(super) fn begin(&self, begun: Begun, request_id: HeaderValue) -> Entry {
        Entry {
            shared: self.shared.clone(),
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

impl Drop for Access {
    /// Writes what waits.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.filled.notify_all();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
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
            method: self.begun.method.as_str(),
            path: &self.begun.path,
            version: format!("{:?}", self.begun.version),
            status: self.status(),
            bytes: self.bytes,
            duration_ms: (self.ms() * 1000.0).round() / 1000.0,
            process: self.served.process(),
            instance: self.served.instance(),
            request_id: self.id(),
            code: self.code(),
        };
        // Of strings and numbers, nothing can fail.
        out.push_str(&serde_json::to_string(&line).unwrap_or_default());
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
        match self.shared.json {
            true => self.json(&mut line),
            false => self.text(&mut line),
        }
        let mut inner = self.shared.lock();
        if inner.text.len() >= WAITING_BYTES_MAX {
            inner.dropped += 1;
            return;
        }
        let was_empty = inner.text.is_empty();
        inner.text.push_str(&line);
        drop(inner);
        if was_empty {
            self.shared.filled.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    /// The writer: takes all that waits, writes it at once.
    fn write(&self) {
        let mut text = String::new();
        while let Some(dropped) = self.take(&mut text) {
            // A reader that has gone away is no reason to stop the formation.
            let _ = std::io::stderr().lock().write_all(text.as_bytes());
            text.clear();
            if dropped > 0 {
                tracing::warn!(
                    "{dropped} lines of the access log were dropped: nobody takes them fast enough"
                );
            }
        }
    }

    /// Waits for lines, and says how many are missing; none when there won't be any.
    fn take(&self, text: &mut String) -> Option<u64> {
        let mut inner = self.lock();
        while inner.text.is_empty() {
            if inner.closed {
                return None;
            }
            inner = self.filled.wait(inner).unwrap_or_else(|poison| poison.into_inner());
        }
        std::mem::swap(text, &mut inner.text);
        Some(std::mem::take(&mut inner.dropped))
    }
}
