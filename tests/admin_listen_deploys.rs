//! `[admin]` while the host runs: places, tokens and certificates that a deploy changes.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::admin_listen::{CHALLENGE_WRONG, WRONG, is_refused, look, showing};
use crate::harness::http::{Connection, Request};
use crate::harness::tls::certify;
use crate::harness::{Formation, Host, PATIENCE, TOKEN, address_of_its_own, eventually};
use crate::ingress_listen::activated;

const OTHER: &str = "another-token-0123456789abcdef0123456789";

#[test]
fn a_place_comes_moves_and_goes() {
    let (one, two) = (address_of_its_own(), address_of_its_own());
    let plain = Formation::web("").with_token("admin.token", TOKEN);
    let text = plain.text();
    let host = Host::run(&plain);
    let at = |address| format!("{text}\n[admin]\nlisten = \"{address}\"\ntoken = \"admin.token\"\n");
    let formation = plain.with_text(&at(one));
    let said = host.cli(["deploy"]).done();
    assert!(said.contains(&format!("admin.listen none -> {one}\n")), "{said}");
    look(one, TOKEN).ok();
    let mut kept = Connection::open(one).unwrap();
    let get = || showing(TOKEN, Request::get("/v1/formation"));
    kept.send(&get()).unwrap().ok();

    let formation = formation.with_text(&at(two));
    host.cli(["deploy"]).done();
    look(two, TOKEN).ok();
    eventually("the place that was left is closed", || Connection::open(one).is_err().then_some(()));
    assert_eq!(host.ps().0["admin"].as_array().unwrap(), &[Value::from(format!("http://{two}/"))]);

    // The order to go comes by the place that goes.
    let formation = formation.with_text(&text);
    let deployed = Connection::open(two).unwrap().send(&showing(TOKEN, Request::post("/v1/deploy", "{}")));
    assert!(deployed.unwrap().ok().contains("\"live\""));
    eventually("it is closed", || Connection::open(two).is_err().then_some(()));
    assert_eq!(host.ps().0["admin"].as_array().unwrap().len(), 0);

    // A way back brings it again.
    host.cli(["rollback"]).done();
    look(two, TOKEN).ok();
    drop(formation);
}

#[test]
fn a_deploy_takes_a_token_that_has_changed_in_its_file() {
    let formation = Formation::web("").admin();
    let host = Host::run(&formation);
    let address = host.admin();
    let formation = formation.with_token("admin.token", OTHER);
    is_refused(&look(address, OTHER), 401, CHALLENGE_WRONG, "not the one");
    let said = host.cli(["deploy", "--dry-run"]).done();
    assert!(said.contains("/admin.token has changed\n") && !said.contains(&OTHER[..8]), "{said}");
    look(address, TOKEN).ok();
    let said = host.cli(["deploy"]).done();
    assert!(said.ends_with(" changes: v1 is live\n"), "{said}");
    look(address, OTHER).ok();
    is_refused(&look(address, TOKEN), 401, CHALLENGE_WRONG, "not the one");
    // One that is none fails a deploy, and the one from before stays.
    let formation = formation.with_token("admin.token", "short");
    for arguments in [["deploy", "--json"], ["deploy", "--dry-run"]] {
        host.cli(arguments).failed(1, "has 5 characters, expected at least 32");
    }
    look(address, OTHER).ok();
    let formation = formation.with_token("admin.token", TOKEN);
    host.signal(rustix::process::Signal::HUP);
    eventually("a signal deploys too", || (look(address, TOKEN).status == 200).then_some(()));
    drop(formation);
}

#[test]
fn connections_that_have_shown_a_token_which_was_replaced_end_soon_but_not_at_once() {
    let formation = Formation::web("").admin();
    let host = Host::run(&formation);
    let address = host.admin();
    let mut follower = TcpStream::connect(address).unwrap();
    follower.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("GET /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
    follower.write_all(head.as_bytes()).unwrap();
    let mut first = [0; 12];
    follower.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let mut kept = Connection::open(address).unwrap();
    let get = || Request::get("/v1/formation");
    kept.send(&showing(TOKEN, get())).unwrap().ok();

    let formation = formation.with_token("admin.token", OTHER);
    let replaced = Instant::now();
    host.cli(["deploy"]).done();
    // A request with the old token isn't answered, nor is one with the new on the old one's connection forgotten.
    kept.send(&showing(OTHER, get())).unwrap().ok();
    is_refused(&kept.send(&showing(TOKEN, get())).unwrap(), 401, CHALLENGE_WRONG, "not the one");
    // A follower hears of what the deploy did, and of more for a while.
    host.cli(["scale", "web=2"]).done();
    let mut heard = Vec::new();
    let ended = follower.read_to_end(&mut heard);
    let lasted = replaced.elapsed();
    assert!(ended.is_ok() || ended.is_err_and(|err| err.kind() == ErrorKind::ConnectionReset));
    let heard = String::from_utf8_lossy(&heard);
    assert!(heard.contains("\"kind\":\"count\""), "{heard}");
    assert!(lasted >= Duration::from_secs(30), "{lasted:?}");
    drop(formation);
}

#[test]
fn another_file_for_the_token_is_another_release() {
    let formation = Formation::web("").admin();
    let host = Host::run(&formation);
    let address = host.admin();
    let formation = formation.with_token("other.token", OTHER);
    // From any port to the one that it got.
    let formation = formation.replace(
        "[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"admin.token\"",
        &format!("[admin]\nlisten = \"{address}\"\ntoken = \"other.token\""),
    );
    host.cli(["deploy"]).done();
    look(address, OTHER).ok();
    is_refused(&look(address, TOKEN), 401, CHALLENGE_WRONG, "not the one");
    host.cli(["rollback"]).done();
    // The release of before listens on any port.
    let ps = host.ps();
    let place = ps.0["admin"][0].as_str().unwrap().trim_start_matches("http://");
    look(place.trim_end_matches('/').parse().unwrap(), TOKEN).ok();
    drop(formation);
}

#[test]
fn a_deploy_that_fails_leaves_the_places_as_they_were() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let formation = Formation::web("").admin();
    let host = Host::run(&formation);
    let address = host.admin();
    let text = formation.text();
    let listen = format!("[admin]\nlisten = \"{}\"", taken.local_addr().unwrap());
    let formation = formation.with_text(&text.replace("[admin]\nlisten = \"127.0.0.1:0\"", &listen));
    host.cli(["deploy"]).failed(1, "for [admin]: ");
    look(address, TOKEN).ok();
    let formation = formation.with_text(&text.replace("\"admin.token\"", "\"no.token\""));
    host.cli(["deploy"]).failed(1, "can't read the token file");
    look(address, TOKEN).ok();
    is_refused(&look(address, WRONG), 401, CHALLENGE_WRONG, "not the one");
    drop(formation);
}

#[test]
fn tls_comes_with_a_deploy() {
    let address = address_of_its_own();
    let admin = certify("admin.example");
    let formation = Formation::web("")
        .admin()
        .replace("[admin]\nlisten = \"127.0.0.1:0\"", &format!("[admin]\nlisten = \"{address}\""));
    let host = Host::run(&formation);
    look(address, TOKEN).ok();
    admin.write(&formation, "admin");
    let text = formation.text();
    let formation =
        formation.with_text(&format!("{text}\n[admin.tls]\ncert = \"admin.pem\"\nkey = \"admin.key\""));
    host.cli(["deploy"]).done();
    let mut stream = admin.connect(address, "admin.example", &[]).unwrap();
    let get = format!("GET /v1/formation HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
    stream.write_all(get.as_bytes()).unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    drop(formation);
}

#[test]
fn a_socket_that_was_handed_over_is_for_the_admin_api_alone() {
    let [web, admin] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let at_admin = admin.local_addr().unwrap();
    let formation = Formation::web("").http("listen = \"fd:web\"").admin();
    let formation = formation.replace(
        "[admin]\nlisten = \"127.0.0.1:0\"",
        "[admin]\nlisten = [\"fd:admin\", \"unix:admin-api.sock\"]",
    );
    let mut host = activated(&formation, &[web.as_fd(), admin.as_fd()], "web:admin");
    look(at_admin, TOKEN).ok();
    let mut stream = UnixStream::connect(formation.path("admin-api.sock")).unwrap();
    stream.write_all(b"GET /v1/formation HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 401");
    // It can't become one for requests.
    let formation = formation.replace("fd:web", "systemd");
    formation.cli(["deploy"]).done();
    look(at_admin, TOKEN).ok();
    formation.cli(["stop"]).done();
    assert!(host.wait().unwrap().success());
}
