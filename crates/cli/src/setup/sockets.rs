//! The socket units of a formation's listeners.
//!
//! Addresses and paths that the formation names are opened by systemd, and the host takes what it is handed by its
//! address. `fd:NAME` has a unit of its own, since a unit has one name for all of its sockets.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use wasmhost_config::{Http, Listen};

use super::unit::{self, Unit};
use crate::exit::{Exit, Failed};

const ADDRESS_DEFAULT: &str = "127.0.0.1:8080";

/// Connections that wait to be accepted: as many as where the host listens by itself.
const WAITING_MAX: u32 = 4096;

/// The units, and what has none.
#[derive(Default)]
pub(super) struct Sockets {
    /// Names and texts of units.
    pub(super) units: Vec<(String, String)>,
    /// The names alone.
    pub(super) names: Vec<String>,
    /// Listeners that the host opens by itself, and why.
    pub(super) left: Vec<String>,
}

/// Where one socket listens.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Writes the units. `given` is `[NAME=]ADDRESS` for what is handed over by name. `http` is there if a type takes requests.
///
/// Places `apart`, of `[health]` and `[admin]`, have none, unless they are handed over by name: a probe is to fail while no
/// host runs, and not to wait for one.
pub(super) fn sockets(
    http: Option<&Http>,
    apart: &[Listen],
    given: &[String],
    name: &str,
    user: &str,
) -> Result<Sockets, Failed> {
    let wrong = |message: String| Failed::new(Exit::Usage, message);
    let mut given = named(given).map_err(wrong)?;
    let mut sockets = Sockets::default();
    // By the name that the host asks for: none for all that it knows by its address.
    let mut by_name: BTreeMap<Option<String>, Vec<Place>> = BTreeMap::new();
    let plain = http.into_iter().flat_map(|http| &http.listen);
    let tls = http.into_iter().flat_map(|http| &http.tls).flat_map(|tls| &tls.listen);
    let by_name_alone = |listen: &&Listen| matches!(listen, Listen::HandedOver(Some(_)));
    for listen in plain.chain(tls).chain(apart.iter().filter(by_name_alone)) {
        let (asked, places) = match listen {
            Listen::Tcp(address) => match resolve(address) {
                Ok(place) => (None, vec![place]),
                Err(why) => {
                    sockets.left.push(format!("the host itself listens on {address}: {why}"));
                    continue;
                }
            },
            Listen::Unix(path) => (None, vec![Place::Unix(path.clone())]),
            Listen::HandedOver(asked) => {
                let default = || vec![Place::Tcp(SocketAddr::from(([127, 0, 0, 1], 8080)))];
                (asked.clone(), given.remove(asked).unwrap_or_else(default))
            }
        };
        by_name.entry(asked).or_default().extend(places);
    }
    if let Some(unasked) = given.into_keys().next() {
        let listen = Listen::HandedOver(unasked);
        return Err(wrong(format!(
            "--listen: the formation has no `listen` of \"{listen}\", which this is for"
        )));
    }
    for (asked, places) in by_name {
        let file = match &asked {
            None => format!("{name}.socket"),
            Some(asked) => format!("{name}-{}.socket", unit::unit_name(asked)),
        };
        let mode = http.map_or(Http::default().socket_mode, |http| http.socket_mode);
        let text = text(mode, asked.as_deref(), &places, name, user).map_err(|refused| wrong(refused.0))?;
        sockets.names.push(file.clone());
        sockets.units.push((file, text));
    }
    Ok(sockets)
}

fn text(
    mode: u32,
    asked: Option<&str>,
    places: &[Place],
    name: &str,
    user: &str,
) -> Result<String, unit::Unnameable> {
    let mut unit = Unit::default();
    unit.comment("Written by `wasmhost export systemd`.");
    unit.section("Unit");
    unit.set("Description", format_args!("Sockets of {name}"));
    unit.section("Socket");
    for place in places {
        match place {
            Place::Tcp(address) => unit.set("ListenStream", address),
            Place::Unix(path) => unit.set("ListenStream", unit::whole_path(path)?),
        }
    }
    if let Some(asked) = asked {
        unit.set("FileDescriptorName", unit::text(asked));
    }
    unit.set("Service", format_args!("{name}.service"));
    unit.set("Backlog", WAITING_MAX);
    if places.iter().any(|place| matches!(place, Place::Unix(_))) {
        unit.set("SocketUser", user);
        unit.set("SocketMode", format_args!("{mode:04o}"));
        unit.set("RemoveOnStop", "yes");
    }
    unit.section("Install");
    unit.set("WantedBy", "sockets.target");
    Ok(unit.into_text())
}

/// The address that the host would get. A later look-up may find another one.
fn resolve(address: &str) -> Result<Place, String> {
    let mut found = address.to_socket_addrs().map_err(|err| err.to_string())?;
    match found.next() {
        Some(address) if address.port() == 0 => Err("port 0 is another one at each start".to_owned()),
        Some(address) => Ok(Place::Tcp(address)),
        None => Err("the name has no address".to_owned()),
    }
}

/// `[NAME=]ADDRESS`, by name.
fn named(given: &[String]) -> Result<BTreeMap<Option<String>, Vec<Place>>, String> {
    let mut named: BTreeMap<Option<String>, Vec<Place>> = BTreeMap::new();
    for text in given {
        let (name, address) = match text.split_once('=') {
            Some((name, address)) if !address.is_empty() && !name.starts_with('/') => {
                (Some(name.to_owned()), address)
            }
            _ => (None, text.as_str()),
        };
        let place = match (address.parse::<u16>(), address.parse::<SocketAddr>()) {
            (Ok(port), _) => Place::Tcp(SocketAddr::from(([0, 0, 0, 0], port))),
            (_, Ok(address)) => Place::Tcp(address),
            _ => match address.strip_prefix("unix:").unwrap_or(address) {
                path if path.starts_with('/') => Place::Unix(path.into()),
                _ => {
                    return Err(format!(
                        "--listen {text}: expected [NAME=]ADDRESS with a port, an address such as {ADDRESS_DEFAULT}, or an absolute path"
                    ));
                }
            },
        };
        named.entry(name).or_default().push(place);
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmhost_config::{CertificateFiles, Tls};

    fn units(listen: &[&str], given: &[&str]) -> Result<Vec<(String, Vec<String>)>, String> {
        let listen = listen.iter().map(|text| text.parse().unwrap()).collect();
        let http = Http { listen, ..Http::default() };
        let given: Vec<_> = given.iter().map(|text| (*text).to_owned()).collect();
        let sockets = sockets(Some(&http), &[], &given, "shop", "shop").map_err(|failed| failed.message)?;
        let lines = |text: &str| -> Vec<String> {
            let kept = ["ListenStream=", "FileDescriptorName=", "Socket"];
            text.lines()
                .filter(|line| kept.iter().any(|key| line.starts_with(key)))
                .map(str::to_owned)
                .collect()
        };
        Ok(sockets.units.iter().map(|(name, text)| (name.clone(), lines(text))).collect())
    }

    fn one(name: &str, lines: &[&str]) -> (String, Vec<String>) {
        (name.to_owned(), lines.iter().map(|line| (*line).to_owned()).collect())
    }

    #[test]
    fn a_unit_has_every_address_and_path() {
        assert_eq!(
            units(&["127.0.0.1:80", "[::1]:81", "unix:/run/a b%.sock"], &[]).unwrap(),
            [one(
                "shop.socket",
                &[
                    "ListenStream=127.0.0.1:80",
                    "ListenStream=[::1]:81",
                    "ListenStream=/run/a b%%.sock",
                    "SocketUser=shop",
                    "SocketMode=0660"
                ]
            )]
        );
        assert!(units(&["127.0.0.1:0"], &[]).unwrap().is_empty(), "another port at each start");
    }

    #[test]
    fn names_have_units_of_their_own() {
        assert_eq!(
            units(&["fd:web", "systemd"], &["web=80", "unix:/run/x"]).unwrap(),
            [
                one("shop.socket", &["ListenStream=/run/x", "SocketUser=shop", "SocketMode=0660"]),
                one("shop-web.socket", &["ListenStream=0.0.0.0:80", "FileDescriptorName=web"]),
            ]
        );
        assert_eq!(units(&["systemd"], &[]).unwrap(), [one("shop.socket", &["ListenStream=127.0.0.1:8080"])]);
        assert!(units(&["systemd"], &["api=80"]).unwrap_err().contains("no `listen` of \"fd:api\""));
        assert!(units(&["systemd"], &["nonsense"]).unwrap_err().contains("expected [NAME=]ADDRESS"));
    }

    #[test]
    fn tls_listens_beside_plain_http() {
        let files = CertificateFiles { cert: "/c".into(), key: "/k".into() };
        let tls = Tls { listen: vec!["127.0.0.1:443".parse().unwrap()], certificates: vec![files] };
        let http = Http { tls: Some(tls), ..Http::default() };
        let sockets =
            sockets(Some(&http), &[], &[], "shop", "shop").unwrap_or_else(|failed| panic!("{failed:?}"));
        assert!(sockets.units[0].1.contains("ListenStream=127.0.0.1:8080\nListenStream=127.0.0.1:443\n"));
    }

    #[test]
    fn probes_have_a_unit_only_where_they_ask_for_it_by_name() {
        let listen: Vec<Listen> = ["127.0.0.1:9090", "fd:probes"].map(|text| text.parse().unwrap()).to_vec();
        let given = ["probes=9091".to_owned()];
        let sockets = sockets(None, &listen, &given, "shop", "shop");
        let sockets = sockets.unwrap_or_else(|failed| panic!("{failed:?}"));
        assert_eq!(sockets.names, ["shop-probes.socket"]);
        assert!(sockets.units[0].1.contains("ListenStream=0.0.0.0:9091\nFileDescriptorName=probes\n"));
    }
}
