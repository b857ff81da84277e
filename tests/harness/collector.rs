//! A collector of traces and metrics for the tests. It also is the server that guests ask: it keeps every request.
//!
//! Messages are read field by field, by the numbers that
//! <https://github.com/open-telemetry/opentelemetry-proto> gives them, and not by the code that writes them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::{Formation, eventually};

pub(crate) struct Collector {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    requests: Vec<Received>,
    answers: Vec<String>,
    is_silent: bool,
}

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    body: Vec<u8>,
    /// The status that it was answered with; 0 for none.
    status: u16,
}

/// A span that it has taken.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty where it is the first.
    pub(crate) parent: String,
    pub(crate) state: String,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) events: Vec<String>,
    pub(crate) failed: bool,
    pub(crate) flags: u32,
    pub(crate) resource: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

/// A metric that it has taken.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OtlpMetric {
    pub(crate) unit: String,
    /// `gauge`, `counter` or `histogram`, as Prometheus calls them.
    pub(crate) kind: &'static str,
    pub(crate) is_cumulative: bool,
    /// The values by their attributes (`type=web`); of a histogram its count.
    pub(crate) points: BTreeMap<String, f64>,
}

impl Collector {
    pub(crate) fn open() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Mutex<Shared>>::default();
        let all = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), all) = (stream, all.clone()) else { continue };
                std::thread::spawn(move || serve(stream, &all));
            }
        });
        Collector { address, shared }
    }

    /// The formation's host sends it spans and metrics, at once.
    pub(crate) fn of(&self, formation: Formation) -> Formation {
        formation
            .variable("OTEL_EXPORTER_OTLP_ENDPOINT", self.url(""))
            .variable("OTEL_BSP_SCHEDULE_DELAY", "10")
            .variable("OTEL_METRIC_EXPORT_INTERVAL", "50")
    }

    /// A URL of it, without a `/` before the path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The key of a type that may ask it.
    pub(crate) fn outbound(&self) -> String {
        format!("outbound = [\"{}\"]", self.url(""))
    }

    /// The next requests with messages are answered so, one after another: with a status line's end, and headers.
    pub(crate) fn will_answer(&self, answers: &[&str]) {
        self.lock().answers = answers.iter().rev().map(|answer| (*answer).to_owned()).collect();
    }

    /// No message is answered from now on.
    pub(crate) fn be_silent(&self) {
        self.lock().is_silent = true;
    }

    pub(crate) fn requests(&self, path: &str) -> Vec<Received> {
        let shared = self.lock();
        shared.requests.iter().filter(|request| request.path == path).cloned().collect()
    }

    /// Waits for a request.
    #[track_caller]
    pub(crate) fn asked(&self, path: &str) -> Received {
        eventually(&format!("{path} is asked for"), || self.requests(path).pop())
    }

    /// The spans that it has taken.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let taken = self.requests("/v1/traces").into_iter().filter(|request| request.status == 200);
        taken.flat_map(|request| spans(&request.body)).collect()
    }

    /// Waits for a span.
    #[track_caller]
    pub(crate) fn span(&self, what: &str, is_it: impl Fn(&Span) -> bool) -> Span {
        let found = || self.spans().into_iter().find(|span| is_it(span));
        eventually(&format!("there is a span: {what}"), found)
    }

    /// Waits for metrics that are so.
    #[track_caller]
    pub(crate) fn metrics<T>(
        &self,
        what: &str,
        answer: impl Fn(&BTreeMap<String, OtlpMetric>) -> Option<T>,
    ) -> T {
        eventually(what, || {
            let last = self.requests("/v1/metrics").pop()?;
            answer(&metrics(&last.body))
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }
}

/// Answers requests of one connection until it ends.
fn serve(stream: TcpStream, shared: &Mutex<Shared>) {
    let mut reader = BufReader::new(stream);
    while let Some(mut request) = read(&mut reader) {
        let is_message = request.path.starts_with("/v1/");
        let (is_silent, answer) = {
            let mut shared = shared.lock().unwrap();
            let answer = if is_message { shared.answers.pop() } else { None };
            (is_message && shared.is_silent, answer.unwrap_or_else(|| "200 OK\r\n\r\n".to_owned()))
        };
        request.status = if is_silent { 0 } else { answer[..3].parse().unwrap() };
        shared.lock().unwrap().requests.push(request);
        if is_silent {
            // Until the other end has had enough.
            let _ = reader.read(&mut [0]);
            return;
        }
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        line.strip_suffix("\r\n").map(str::to_owned)
    };
    let path = line()?.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    while let Some((name, value)) = line()?.split_once(": ") {
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Received { path, headers, body, status: 200 })
}

// --- messages

/// A field's value, by how it is written.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message.
struct Message<'a>(Vec<(u64, Value<'a>)>);

impl<'a> Message<'a> {
    fn read(mut bytes: &'a [u8]) -> Message<'a> {
        let mut fields = vec![];
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let value = match tag & 7 {
                0 => Value::Number(varint(&mut bytes)),
                1 => Value::Number(u64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap())),
                2 => {
                    let length = varint(&mut bytes);
                    Value::Bytes(take(&mut bytes, usize::try_from(length).unwrap()))
                }
                5 => Value::Number(u32::from_le_bytes(take(&mut bytes, 4).try_into().unwrap()).into()),
                other => panic!("nothing is written as {other}"),
            };
            fields.push((tag >> 3, value));
        }
        Message(fields)
    }

    fn all(&self, number: u64) -> impl Iterator<Item = Value<'a>> {
        self.0.iter().filter(move |(found, _)| *found == number).map(|(_, value)| *value)
    }

    fn messages(&self, number: u64) -> Vec<Message<'a>> {
        let read = |value| match value {
            Value::Bytes(bytes) => Message::read(bytes),
            Value::Number(number) => panic!("{number} is no message"),
        };
        self.all(number).map(read).collect()
    }

    fn bytes(&self, number: u64) -> &'a [u8] {
        match self.all(number).next() {
            Some(Value::Bytes(bytes)) => bytes,
            _ => &[],
        }
    }

    fn text(&self, number: u64) -> String {
        String::from_utf8(self.bytes(number).to_vec()).unwrap()
    }

    fn hex(&self, number: u64) -> String {
        self.bytes(number).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn number(&self, number: u64) -> Option<u64> {
        match self.all(number).next() {
            Some(Value::Number(number)) => Some(number),
            _ => None,
        }
    }

    /// Attributes, all of them as text.
    fn attributes(&self, number: u64) -> BTreeMap<String, String> {
        let value = |pair: &Message<'_>| {
            let value = pair.messages(2).pop().unwrap();
            match value.0[..] {
                [(1, Value::Bytes(text))] => String::from_utf8(text.to_vec()).unwrap(),
                [(2, Value::Number(is))] => (is == 1).to_string(),
                [(3, Value::Number(number))] => number.to_string(),
                [(4, Value::Number(bits))] => f64::from_bits(bits).to_string(),
                _ => panic!("it is no value: {:?}", value.0),
            }
        };
        self.messages(number).iter().map(|pair| (pair.text(1), value(pair))).collect()
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    number
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    taken
}

fn spans(body: &[u8]) -> Vec<Span> {
    let mut all = vec![];
    for of_resource in Message::read(body).messages(1) {
        let resource = of_resource.messages(1).pop().unwrap().attributes(1);
        for of_scope in of_resource.messages(2) {
            assert_eq!(of_scope.messages(1).pop().unwrap().text(1), "wasmhost");
            all.extend(of_scope.messages(2).iter().map(|span| read_span(span, &resource)));
        }
    }
    all
}

fn read_span(span: &Message<'_>, resource: &BTreeMap<String, String>) -> Span {
    assert_eq!((span.bytes(1).len(), span.bytes(2).len()), (16, 8), "the numbers of a trace and of a span");
    Span {
        trace: span.hex(1),
        id: span.hex(2),
        parent: span.hex(4),
        state: span.text(3),
        name: span.text(5),
        kind: match span.number(6).unwrap() {
            1 => Kind::Internal,
            2 => Kind::Server,
            3 => Kind::Client,
            4 => Kind::Producer,
            5 => Kind::Consumer,
            other => panic!("there is no kind {other}"),
        },
        start: span.number(7).unwrap(),
        end: span.number(8).unwrap(),
        attributes: span.attributes(9),
        events: span.messages(11).iter().map(|event| event.text(2)).collect(),
        failed: span.messages(15).pop().is_some_and(|status| status.number(3) == Some(2)),
        flags: u32::try_from(span.number(16).unwrap()).unwrap(),
        resource: resource.clone(),
    }
}

fn metrics(body: &[u8]) -> BTreeMap<String, OtlpMetric> {
    let mut all = BTreeMap::new();
    for of_resource in Message::read(body).messages(1) {
        for of_scope in of_resource.messages(2) {
            for metric in of_scope.messages(2) {
                let before = all.insert(metric.text(1), read_metric(&metric));
                assert_eq!(before, None, "each is there once");
            }
        }
    }
    all
}

fn read_metric(metric: &Message<'_>) -> OtlpMetric {
    let unit = metric.text(3);
    let of = |number| metric.messages(number).pop();
    let (kind, data) = match (of(5), of(7), of(9)) {
        (Some(gauge), None, None) => ("gauge", gauge),
        (None, Some(sum), None) => {
            assert_eq!(sum.number(3), Some(1), "it only grows");
            ("counter", sum)
        }
        (None, None, Some(histogram)) => ("histogram", histogram),
        _ => panic!("{} has no data", metric.text(1)),
    };
    let is_cumulative = kind == "gauge" || data.number(2) == Some(2);
    let points = data.messages(1);
    let points = points.iter().map(|point| {
        let (attributes, value) = match kind {
            "histogram" => {
                let counts: Vec<u64> = point
                    .bytes(6)
                    .chunks(8)
                    .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
                    .collect();
                assert_eq!(counts.len(), point.bytes(7).len() / 8 + 1, "one more bucket than bounds");
                let count = point.number(4).unwrap_or(0);
                assert_eq!(counts.iter().sum::<u64>(), count);
                (point.attributes(9), count as f64)
            }
            _ => {
                let real = point.number(4).map(f64::from_bits);
                (point.attributes(7), real.unwrap_or_else(|| point.number(6).unwrap() as f64))
            }
        };
        assert!(point.number(3).unwrap() > 0, "it has a time");
        assert!(kind == "gauge" || point.number(2) <= point.number(3), "it has begun before");
        let attributes: Vec<String> =
            attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (attributes.join(","), value)
    });
    OtlpMetric { unit, kind, is_cumulative, points: points.collect() }
}
