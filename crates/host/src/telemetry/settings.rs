//! The variables of OpenTelemetry: <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>. Pure.
//!
//! An empty variable is as good as none. A number that can't be used is told of, and its default is used, as the
//! specification has it. An endpoint, a protocol or an exporter that can't be used is an error: whoever sets one expects
//! something to come of it. Values of headers are secrets, and in no text.

use std::path::PathBuf;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::traces::{SAMPLERS, Sampler};

/// Milliseconds, and numbers, where nobody says any.
const TIMEOUT: u64 = 10_000;
const EXPORT_TIMEOUT: u64 = 30_000;
const DELAY: u64 = 5_000;
const INTERVAL: u64 = 60_000;
const QUEUE: u64 = 2_048;
const BATCH: u64 = 512;

/// The most that they may be. A span in the queue takes about a KiB.
const MILLISECONDS_MAX: u64 = 24 * 3_600_000;
const QUEUE_MAX: u64 = 1 << 20;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TelemetrySettings {
    pub(crate) traces: Option<TraceSettings>,
    pub(crate) metrics: Option<MetricSettings>,
    /// Attributes of the resource, `service.name` among them where somebody says it.
    pub(crate) resource: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TraceSettings {
    pub(crate) target: Target,
    pub(crate) sampler: Sampler,
    pub(crate) queue_max: usize,
    pub(crate) batch_max: usize,
    pub(crate) delay: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MetricSettings {
    pub(crate) target: Target,
    pub(crate) interval: Duration,
}

/// Where one of the two is sent to.
#[derive(Clone, PartialEq)]
pub(crate) struct Target {
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    /// For one request.
    pub(crate) timeout: Duration,
    /// For one batch, with all that is tried.
    pub(crate) export_timeout: Duration,
    /// The certificates that are trusted in place of the usual ones.
    pub(crate) certificate: Option<PathBuf>,
}

/// A variable that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {problem}")]
pub struct TelemetryError {
    variable: String,
    problem: String,
}

/// The variables as they are read, and what is to be told of them.
struct Variables<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    warnings: Vec<String>,
}

impl TelemetrySettings {
    /// Reads them, by this function. Returns what is to be told of them, too.
    pub fn read(
        get: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(TelemetrySettings, Vec<String>), TelemetryError> {
        let mut variables = Variables { get, warnings: vec![] };
        let settings = variables.settings()?;
        Ok((settings, variables.warnings))
    }
}

impl Variables<'_> {
    fn settings(&mut self) -> Result<TelemetrySettings, TelemetryError> {
        if self.is_set("OTEL_SDK_DISABLED") {
            return Ok(TelemetrySettings::default());
        }
        let traces = self.target("TRACES", "v1/traces", "OTEL_BSP_EXPORT_TIMEOUT")?;
        let metrics = self.target("METRICS", "v1/metrics", "OTEL_METRIC_EXPORT_TIMEOUT")?;
        if traces.is_none() && metrics.is_none() {
            return Ok(TelemetrySettings::default());
        }
        let traces = traces.map(|target| self.traces(target));
        let metrics = metrics.map(|target| self.metrics(target));
        Ok(TelemetrySettings { traces, metrics, resource: self.resource() })
    }

    fn traces(&mut self, target: Target) -> TraceSettings {
        let sampler = self.sampler();
        let queue_max = self.number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE, 1..=QUEUE_MAX);
        let batch_max = self.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH.min(queue_max), 1..=QUEUE_MAX);
        if batch_max > queue_max {
            self.tell(format!(
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE: found {batch_max}, expected at most OTEL_BSP_MAX_QUEUE_SIZE; {queue_max} is used"
            ));
        }
        let delay = self.milliseconds("OTEL_BSP_SCHEDULE_DELAY", DELAY);
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        TraceSettings {
            target,
            sampler,
            queue_max: count(queue_max),
            batch_max: count(batch_max.min(queue_max)),
            delay,
        }
    }

    fn metrics(&mut self, target: Target) -> MetricSettings {
        let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        if let Some(found) = self.get(name).filter(|found| !found.eq_ignore_ascii_case("cumulative")) {
            self.tell(format!("{name}: found \"{}\", and only \"cumulative\" is there", shown(&found)));
        }
        MetricSettings { target, interval: self.milliseconds("OTEL_METRIC_EXPORT_INTERVAL", INTERVAL) }
    }

    /// Where a signal goes, if it goes anywhere.
    fn target(
        &mut self,
        signal: &str,
        path: &str,
        export_timeout: &str,
    ) -> Result<Option<Target>, TelemetryError> {
        if !self.is_exported(&format!("OTEL_{signal}_EXPORTER"))? {
            return Ok(None);
        }
        let own = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
        let uri = match (self.get(&own), self.get("OTEL_EXPORTER_OTLP_ENDPOINT")) {
            (Some(endpoint), _) => endpoint_of(&own, &endpoint, None)?,
            (None, Some(endpoint)) => endpoint_of("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint, Some(path))?,
            (None, None) => return Ok(None),
        };
        if let Some((name, found)) = self.of(signal, "PROTOCOL").filter(|(_, found)| found != "http/protobuf")
        {
            let problem = format!(
                "found \"{}\", and only \"http/protobuf\" is there (a collector has it on port 4318, as a rule)",
                shown(&found)
            );
            return Err(TelemetryError { variable: name, problem });
        }
        for (what, advice) in [
            ("CLIENT_KEY", "certificates of clients aren't there: a header can have a token"),
            ("CLIENT_CERTIFICATE", "certificates of clients aren't there: a header can have a token"),
        ] {
            if let Some((name, _)) = self.of(signal, what) {
                return Err(TelemetryError { variable: name, problem: advice.to_owned() });
            }
        }
        match self.of(signal, "COMPRESSION") {
            Some((name, found)) if found != "none" => self.tell(format!(
                "{name}: found \"{}\", and only \"none\" is there: nothing is compressed",
                shown(&found)
            )),
            _ => {}
        }
        let headers = match self.of(signal, "HEADERS") {
            Some((name, found)) => {
                headers(&found).map_err(|problem| TelemetryError { variable: name, problem })?
            }
            None => HeaderMap::new(),
        };
        let timeout = match self.of(signal, "TIMEOUT") {
            Some((name, _)) => self.milliseconds(&name, TIMEOUT),
            None => Duration::from_millis(TIMEOUT),
        };
        let certificate = self.of(signal, "CERTIFICATE").map(|(_, file)| PathBuf::from(file));
        let export_timeout = self.milliseconds(export_timeout, EXPORT_TIMEOUT);
        Ok(Some(Target { uri, headers, timeout, export_timeout, certificate }))
    }

    /// Whether the exporter of a signal is ours.
    fn is_exported(&self, name: &str) -> Result<bool, TelemetryError> {
        let Some(found) = self.get(name) else { return Ok(true) };
        match found.as_str() {
            "otlp" => Ok(true),
            "none" => Ok(false),
            _ => Err(TelemetryError {
                variable: name.to_owned(),
                problem: format!("found \"{}\", expected \"otlp\" or \"none\"", shown(&found)),
            }),
        }
    }

    fn sampler(&mut self) -> Sampler {
        let Some(name) = self.get("OTEL_TRACES_SAMPLER") else { return Sampler::default() };
        let argument = self.get("OTEL_TRACES_SAMPLER_ARG");
        match Sampler::parse(&name, argument.as_deref()) {
            Some((sampler, heard)) => {
                if let Err(problem) = heard {
                    self.tell(format!("OTEL_TRACES_SAMPLER_ARG: {problem}"));
                }
                sampler
            }
            None => {
                self.tell(format!(
                    "OTEL_TRACES_SAMPLER: found \"{}\", expected {SAMPLERS}; parentbased_always_on is used",
                    shown(&name)
                ));
                Sampler::default()
            }
        }
    }

    /// The attributes of the resource.
    fn resource(&mut self) -> Vec<(String, String)> {
        let name = "OTEL_RESOURCE_ATTRIBUTES";
        let mut attributes = match self.get(name).map(|found| pairs(&found)) {
            None => vec![],
            Some(Ok(pairs)) => pairs,
            // As the specification has it: one that is wrong makes all of them so.
            Some(Err(entry)) => {
                self.tell(format!(
                    "{name}: entry {entry} isn't \"key=value\" with other characters percent-encoded; none of them is used"
                ));
                vec![]
            }
        };
        if let Some(service) = self.get("OTEL_SERVICE_NAME") {
            attributes.retain(|(key, _)| key != "service.name");
            attributes.push(("service.name".to_owned(), service));
        }
        attributes
    }

    // --- values

    fn get(&self, name: &str) -> Option<String> {
        (self.get)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// A signal's own variable, or the one for all signals, with its name.
    fn of(&self, signal: &str, what: &str) -> Option<(String, String)> {
        let names = [format!("OTEL_EXPORTER_OTLP_{signal}_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")];
        names.into_iter().find_map(|name| self.get(&name).map(|value| (name, value)))
    }

    fn is_set(&mut self, name: &str) -> bool {
        match self.get(name) {
            Some(found) if found.eq_ignore_ascii_case("true") => true,
            Some(found) if !found.eq_ignore_ascii_case("false") => {
                self.tell(format!(
                    "{name}: found \"{}\", expected \"true\" or \"false\"; \"false\" is used",
                    shown(&found)
                ));
                false
            }
            _ => false,
        }
    }

    /// Each once, also where both signals have it.
    fn tell(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    fn milliseconds(&mut self, name: &str, default: u64) -> Duration {
        Duration::from_millis(self.number(name, default, 1..=MILLISECONDS_MAX))
    }

    fn number(&mut self, name: &str, default: u64, bounds: std::ops::RangeInclusive<u64>) -> u64 {
        let Some(found) = self.get(name) else { return default };
        match found.parse() {
            Ok(number) if bounds.contains(&number) => number,
            _ => {
                self.tell(format!(
                    "{name}: found \"{}\", expected a whole number from {} to {}; {default} is used",
                    shown(&found),
                    bounds.start(),
                    bounds.end()
                ));
                default
            }
        }
    }
}

/// The address of an endpoint. A signal's own is taken as it is; `path` is added to one that is for all of them.
fn endpoint_of(name: &str, endpoint: &str, path: Option<&str>) -> Result<Uri, TelemetryError> {
    // Not shown: it may have a password in it.
    let wrong = |problem: &str| TelemetryError { variable: name.to_owned(), problem: problem.to_owned() };
    let expected = "expected a URL such as \"http://localhost:4318\"";
    let uri: Uri = endpoint.parse().map_err(|_| wrong(expected))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(wrong(expected));
    };
    if !["http", "https"].contains(&scheme) {
        return Err(wrong(&format!(
            "found a URL of the scheme \"{}\", expected http or https",
            shown(scheme)
        )));
    }
    if authority.as_str().contains('@') {
        return Err(wrong(
            "a name or a password has no place in it: OTEL_EXPORTER_OTLP_HEADERS has one for it",
        ));
    }
    let Some(path) = path else { return Ok(uri) };
    let whole = format!("{}/{path}", uri.path().trim_end_matches('/'));
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(whole).map_err(|_| wrong(expected))?);
    Uri::from_parts(parts).map_err(|_| wrong(expected))
}

fn headers(found: &str) -> Result<HeaderMap, String> {
    let wrong =
        |entry: usize| format!("entry {entry} isn't \"name=value\" with other characters percent-encoded");
    let pairs = pairs(found).map_err(wrong)?;
    let mut headers = HeaderMap::new();
    for (at, (name, value)) in pairs.into_iter().enumerate() {
        let name = HeaderName::try_from(name).map_err(|_| wrong(at + 1))?;
        let mut value = HeaderValue::try_from(value).map_err(|_| wrong(at + 1))?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

/// `key1=value1,key2=value2`, with percent-encoding. The error is the number of the entry that is something else.
fn pairs(text: &str) -> Result<Vec<(String, String)>, usize> {
    let entries = text.split(',').enumerate().filter(|(_, entry)| !entry.trim().is_empty());
    let pair = |(at, entry): (usize, &str)| {
        let (key, value) = entry.split_once('=').ok_or(at + 1)?;
        let (key, value) = (key.trim(), value.trim());
        let key = decoded(key).filter(|key| !key.is_empty()).ok_or(at + 1)?;
        Ok((key, decoded(value).ok_or(at + 1)?))
    };
    entries.map(pair).collect()
}

/// Without percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                // `+1` would be taken for a number.
                if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return None;
                }
                u8::from_str_radix(digits, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn shown(text: &str) -> std::borrow::Cow<'_, str> {
    wasmhost_config::shown::one_line(text, wasmhost_config::shown::NAME_BYTES_MAX)
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = format!(
            "{}://{}{}",
            self.uri.scheme_str().unwrap_or_default(),
            self.authority(),
            self.uri.path()
        );
        f.debug_struct("Target").field("uri", &place).finish_non_exhaustive()
    }
}

impl Target {
    fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    /// The place, for a log line: without a query, which may be a secret.
    pub(crate) fn shown(&self) -> String {
        format!("{}://{}{}", self.uri.scheme_str().unwrap_or_default(), self.authority(), self.uri.path())
    }
}

#[cfg(test)]
#[path = "settings/tests.rs"]
mod tests;
