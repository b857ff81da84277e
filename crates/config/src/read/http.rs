//! `[http]`, `[http.tls]` and `[health]`.

use super::DURATION_MAX;
use crate::http::{AccessLog, CertificateFiles, Health, Http, Listen, Tls, TrustedProxies, parse_network};
use crate::reader::{Item, Reading, Table};
use crate::spelling::quoted;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// The system's limit, less the zero byte at the path's end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// hyper takes no less.
const HEADER_BYTES_MIN: u64 = 8 << 10;
const HEADER_BYTES_MAX: u64 = 1 << 20;
const CONNECTIONS_MAX: u32 = 1_000_000;
/// A small host may be for one client alone, such as a proxy that isn't named as trusted.
const PER_ADDRESS_LEAST: u32 = 100;
const STREAMS_MAX: u32 = 10_000;
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=DURATION_MAX;

const LISTEN_EXPECTED: &str = "a host and a port such as \"127.0.0.1:8080\", \"unix:PATH\", \"systemd\" or \"fd:NAME\", or an array of them";

/// Reads `[http]`. Places where it listens are added to `known`.
pub(super) fn http(cx: &mut Reading<'_>, item: &Item<'_>, known: &mut Vec<Known>) -> Option<Http> {
    let mut table = item.table(cx, "a table such as [http]")?;
    let default = Http::default();
    let listen = table.take("listen");
    let tls = table.take("tls");
    let listen = match (&listen, &tls) {
        (None, None) => default.listen,
        (None, Some(_)) => Vec::new(),
        (Some(item), tls) => read_listen(cx, item, tls.is_some(), known),
    };
    let tls = tls.and_then(|item| read_tls(cx, &item, known));
    let socket_mode = table.take("socket_mode").and_then(|item| mode(cx, &item));
    let mut timeout = |cx: &mut Reading<'_>, key| table.take(key).and_then(|item| item.duration(cx, TIMEOUT));
    let header_timeout = timeout(cx, "header_timeout");
    let idle_timeout = timeout(cx, "idle_timeout");
    let body_timeout = timeout(cx, "body_timeout");
    let header_bytes =
        table.take("max_header").and_then(|item| item.size(cx, HEADER_BYTES_MIN..=HEADER_BYTES_MAX));
    let connections = table.take("max_connections").and_then(|item| item.whole(cx, 1..=CONNECTIONS_MAX));
    let per_address =
        table.take("max_connections_per_address").and_then(|item| item.whole(cx, 1..=CONNECTIONS_MAX));
    let streams = table.take("max_streams").and_then(|item| item.whole(cx, 1..=STREAMS_MAX));
    let trusted_proxies = table.take("trusted_proxies").map(|item| trusted_proxies(cx, &item));
    let access_log = table.take("access_log").and_then(|item| {
        let choices = [("off", AccessLog::Off), ("text", AccessLog::Text), ("json", AccessLog::Json)];
        item.choice(cx, &choices)
    });
    table.finish(cx);
    let connections = connections.unwrap_or(default.connections_max);
    Some(Http {
        listen,
        socket_mode: socket_mode.unwrap_or(default.socket_mode),
        tls,
        header_timeout: header_timeout.unwrap_or(default.header_timeout),
        idle_timeout: idle_timeout.unwrap_or(default.idle_timeout),
        body_timeout: body_timeout.unwrap_or(default.body_timeout),
        header_bytes_max: header_bytes
            .and_then(|bytes| u32::try_from(bytes).ok())
            .unwrap_or(default.header_bytes_max),
        connections_max: connections,
        connections_per_address_max: per_address
            .unwrap_or((connections / 2).max(PER_ADDRESS_LEAST).min(connections)),
        streams_max: streams.unwrap_or(default.streams_max),
        trusted_proxies: trusted_proxies.unwrap_or_default(),
        access_log: access_log.unwrap_or_default(),
    })
}

/// Reads `[health]`, whose places are none of those that are `known`.
pub(super) fn health(cx: &mut Reading<'_>, item: &Item<'_>, known: &mut Vec<Known>) -> Option<Health> {
    let mut table = item.table(cx, "a table such as [health]")?;
    let listen = required(cx, &mut table, "listen", "\"127.0.0.1:9090\"");
    table.finish(cx);
    let item = listen?;
    let listen = read_listen(cx, &item, false, known);
    refuse_all_handed_over(cx, &item, &listen);
    Some(Health { listen })
}

/// A listener apart from the ingress has sockets of its own.
pub(super) fn refuse_all_handed_over(cx: &mut Reading<'_>, item: &Item<'_>, listen: &[Listen]) {
    if listen.contains(&Listen::HandedOver(None)) {
        let message = "found \"systemd\", which are all sockets that were handed over, those for requests too; \
                       expected \"fd:NAME\" for one of them";
        item.problem(cx, message);
    }
}

/// A place to listen that was read, with the key and the line that name it.
pub(super) struct Known {
    place: Listen,
    key: String,
    line: usize,
}

pub(super) fn read_listen(
    cx: &mut Reading<'_>,
    item: &Item<'_>,
    may_be_empty: bool,
    known: &mut Vec<Known>,
) -> Vec<Listen> {
    let elements = one_or_more(cx, item);
    if elements.is_empty() && !may_be_empty {
        item.problem(cx, format!("found an empty array, expected {LISTEN_EXPECTED}"));
    }
    let mut places = Vec::new();
    for element in &elements {
        let Some(place) = place(cx, element) else { continue };
        let found = quoted(&place.to_string());
        match known.iter().find(|known| is_one_place(&known.place, &place)) {
            None => {}
            Some(Known { key, .. }) if *key == element.key => {
                element.problem(cx, format!("the place {found} is given twice: remove one of the two"));
            }
            Some(Known { key, line, .. }) => element.problem(
                cx,
                format!("the place {found} is in {key} too (line {line}): remove one of the two"),
            ),
        }
        let line = cx.report.line(element.span.start);
        known.push(Known { place: place.clone(), key: element.key.clone(), line });
        places.push(place);
    }
    places
}

/// Whether the text alone says that two places are one. A port that is 0 is another one each time.
fn is_one_place(one: &Listen, other: &Listen) -> bool {
    match (one, other) {
        (Listen::Tcp(one), Listen::Tcp(other)) => {
            let is_one = match (one.parse::<SocketAddr>(), other.parse::<SocketAddr>()) {
                (Ok(one), Ok(other)) => one == other,
                _ => one.eq_ignore_ascii_case(other),
            };
            is_one && !one.ends_with(":0")
        }
        _ => one == other,
    }
}

fn place(cx: &mut Reading<'_>, item: &Item<'_>) -> Option<Listen> {
    let text = item.string_or(cx, LISTEN_EXPECTED)?;
    let place = text.parse().map_err(|error| item.problem(cx, format!("{error}"))).ok()?;
    let Listen::Unix(path) = place else { return Some(place) };
    let path = cx.absolute(&path.to_string_lossy());
    let bytes = path.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        let message = format!(
            "found {}, whose path has {bytes} bytes; expected at most {SOCKET_PATH_BYTES_MAX}, which is what the \
             system takes",
            quoted(&text)
        );
        item.problem(cx, message);
    }
    Some(Listen::Unix(path))
}

fn one_or_more<'t>(cx: &mut Reading<'_>, item: &Item<'t>) -> Vec<Item<'t>> {
    match item.is_array() {
        true => item.array(cx, "").unwrap_or_default(),
        false => vec![item.clone()],
    }
}

fn read_tls(cx: &mut Reading<'_>, item: &Item<'_>, known: &mut Vec<Known>) -> Option<Tls> {
    let mut table = item.table(cx, "a table such as [http.tls]")?;
    let listen = required(cx, &mut table, "listen", "\"0.0.0.0:8443\"")
        .map(|item| read_listen(cx, &item, false, known))
        .unwrap_or_default();
    let certificates = certificates(cx, &mut table);
    table.finish(cx);
    Some(Tls { listen, certificates: certificates? })
}

/// The keys `cert` and `key` of a table.
pub(super) fn certificates(cx: &mut Reading<'_>, table: &mut Table<'_>) -> Option<Vec<CertificateFiles>> {
    let cert = required(cx, table, "cert", "\"cert.pem\"");
    let key = required(cx, table, "key", "\"key.pem\"");
    let (cert, key) = (cert?, key?);
    let certs = paths(cx, &cert);
    let keys = paths(cx, &key);
    if certs.len() != keys.len() {
        let (certs, keys) = (certs.len(), keys.len());
        key.problem(
            cx,
            format!("found {keys} for {certs} in `cert`, expected the key of each, in their order"),
        );
    }
    Some(certs.into_iter().zip(keys).map(|(cert, key)| CertificateFiles { cert, key }).collect())
}

fn required<'t>(
    cx: &mut Reading<'_>,
    table: &mut Table<'t>,
    key: &'static str,
    example: &str,
) -> Option<Item<'t>> {
    let item = table.take(key);
    if item.is_none() && !table.misspells(key) {
        cx.report.add(&table.span, table.path(key), format!("missing; add one, such as {key} = {example}"));
    }
    item
}

fn paths(cx: &mut Reading<'_>, item: &Item<'_>) -> Vec<PathBuf> {
    let elements = one_or_more(cx, item);
    if elements.is_empty() {
        item.problem(cx, "found an empty array, expected a PEM file's path, or an array of them");
    }
    let mut paths = Vec::new();
    for element in elements {
        let path = element.text(cx, "a PEM file's path, or an array of them");
        paths.extend(path.map(|path| cx.absolute(&path)));
    }
    paths
}

/// `"0660"`: as a string, since TOML's own octal numbers begin with `0o`, and `660` would be another one.
fn mode(cx: &mut Reading<'_>, item: &Item<'_>) -> Option<u32> {
    let text = item.word(cx, "a mode such as \"0660\"")?;
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = digits.then(|| u32::from_str_radix(&text, 8).ok()).flatten().filter(|mode| *mode <= 0o777);
    if mode.is_none() {
        item.problem(cx, format!("found {}, expected a mode such as \"0660\"", quoted(&text)));
    }
    mode
}

fn trusted_proxies(cx: &mut Reading<'_>, item: &Item<'_>) -> TrustedProxies {
    let expected = "a network such as \"10.0.0.0/8\", an address, or \"unix\"";
    let elements = item.array(cx, "an array of networks such as [\"10.0.0.0/8\"]").unwrap_or_default();
    let mut trusted = TrustedProxies::default();
    for element in elements {
        let Some(text) = element.word(cx, expected) else { continue };
        match parse_network(&text) {
            _ if text == "unix" => trusted.unix = true,
            Some(network) => trusted.networks.push(network),
            None => element.problem(cx, format!("found {}, expected {expected}", quoted(&text))),
        }
    }
    trusted
}
