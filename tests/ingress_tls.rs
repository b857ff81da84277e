//! HTTPS.

use std::fs;
use std::net::{SocketAddr, TcpStream};

use rustls::{ClientConnection, StreamOwned};

use crate::harness::tls::{Certified, certify};
use crate::harness::{Formation, Host, PATIENCE, eventually};
use crate::ingress_listen::exchange;

const GET: &[u8] = b"GET /headers HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n";

/// Serves HTTPS alone, by these certificates.
fn formation(certificates: &[(&str, &Certified)]) -> Formation {
    let list = |end: &str| {
        let files: Vec<_> = certificates.iter().map(|(file, _)| format!("\"{file}.{end}\"")).collect();
        format!("[{}]", files.join(", "))
    };
    let tls = format!(
        "listen = []\n[http.tls]\nlisten = \"127.0.0.1:0\"\ncert = {}\nkey = {}\n",
        list("pem"),
        list("key")
    );
    let formation = Formation::web("").http(&tls);
    for (file, certified) in certificates {
        certified.write(&formation, file);
    }
    formation
}

fn address(host: &Host) -> SocketAddr {
    let served_at = host.served_at();
    assert_eq!(served_at.len(), 1, "{served_at:?}");
    served_at[0].strip_prefix("https://").unwrap().trim_end_matches('/').parse().unwrap()
}

#[test]
fn a_host_that_follows_its_certificates_no_more_stops_with_an_error() {
    let task = "what follows the files of certificates";
    let formation = formation(&[("a", &certify("a.example"))]);
    let now = formation.path("now");
    let formation = formation.variable("WASMHOST_FAULT_PANIC", format!("{task}:{}", now.display()));
    let host = Host::run(&formation);
    fs::write(now, "").unwrap();
    let ended = host.wait();
    assert!(ended.code == 1 && ended.stderr.contains(&format!("{task} has panicked")), "{ended:#?}");
}

/// A connection of a client that trusts this certificate alone, after its handshake.
fn connect(
    host: &Host,
    name: &str,
    trusted: &Certified,
    protocols: &[&[u8]],
) -> Result<StreamOwned<ClientConnection, TcpStream>, String> {
    trusted.connect(address(host), name, protocols)
}

#[test]
fn a_guest_behind_tls_sees_https() {
    let shop = certify("shop.example");
    let host = Host::run(&formation(&[("shop", &shop)]));
    let answer = exchange(connect(&host, "shop.example", &shop, &[]).unwrap(), GET);
    assert!(answer.contains("\r\n\r\nGET\n/headers\nshop.example\nhttps\n"), "{answer}");
    assert!(answer.contains("x-forwarded-proto: https\n"), "{answer}");
}

#[test]
fn the_clients_choice_of_a_protocol_is_heeded() {
    let shop = certify("shop.example");
    let host = Host::run(&formation(&[("shop", &shop)]));
    for (offered, chosen) in [
        (&[b"h2".as_slice(), b"http/1.1"][..], Some(b"h2".as_slice())),
        (&[b"http/1.1", b"h2"], Some(b"h2")),
        (&[b"http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let mut stream = connect(&host, "shop.example", &shop, offered).unwrap();
        assert_eq!(stream.conn.alpn_protocol(), chosen);
        if chosen == Some(b"h2") {
            let answer = crate::ingress_http2::get(&mut stream, "/ok");
            assert_eq!(answer, b"ok\n");
        }
    }
}

#[test]
fn the_name_that_a_client_asks_for_picks_the_certificate() {
    let (one, two, wild) = (certify("one.example"), certify("two.example"), certify("*.wild.example"));
    let host = Host::run(&formation(&[("one", &one), ("two", &two), ("wild", &wild)]));
    for (name, certified) in [("one.example", &one), ("two.example", &two), ("a.wild.example", &wild)] {
        connect(&host, name, certified, &[]).unwrap_or_else(|err| panic!("{name}: {err}"));
    }
    // Who asks for another gets the first, and may make of it what it likes.
    let error = connect(&host, "three.example", &one, &[]).err().unwrap();
    assert!(error.contains("not valid for name"), "{error}");
}

#[test]
fn changed_certificates_are_taken_and_broken_ones_are_not() {
    let (old, new) = (certify("shop.example"), certify("shop.example"));
    let formation = formation(&[("shop", &old)]);
    let host = Host::run(&formation);
    let mut kept = connect(&host, "shop.example", &old, &[]).unwrap();

    fs::write(formation.path("shop.pem"), "not a certificate").unwrap();
    let line = host.stderr().wait_for("the certificates from before stay in use");
    assert!(line.contains("shop.pem"), "{line}");
    connect(&host, "shop.example", &old, &[]).unwrap();

    new.write(&formation, "shop");
    eventually("the new one is in use", || connect(&host, "shop.example", &new, &[]).ok());
    assert!(connect(&host, "shop.example", &old, &[]).is_err());
    assert_eq!(host.stderr().count("stay in use"), 1);
    // A connection that was there goes on.
    let answer = exchange(&mut kept, GET);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn a_deploy_reads_the_certificates_again() {
    let [old, new, newest] = [(); 3].map(|()| certify("shop.example"));
    let formation = formation(&[("shop", &old)]);
    let host = Host::run(&formation);
    // The host's regular look at the files may be first, and then the deploy finds nothing to do.
    new.write(&formation, "shop");
    let said = host.cli(["deploy"]).done();
    assert!(said.ends_with(" changes: v1 is live\n"), "{said}");
    connect(&host, "shop.example", &new, &[]).unwrap();
    assert!(connect(&host, "shop.example", &old, &[]).is_err());
    // One that can't be used fails a deploy that changes something else, too.
    fs::write(formation.path("shop.key"), &newest.key).unwrap();
    let formation = formation.replace("component", "count = 2\ncomponent");
    for _ in 0..2 {
        let ended = host.cli(["deploy"]).failed(1, "shop.key can't be used together");
        assert!(ended.stderr.contains("v1 is live, as before"), "{ended:#?}");
    }
    connect(&host, "shop.example", &new, &[]).unwrap();
    fs::write(formation.path("shop.pem"), &newest.cert).unwrap();
    let said = host.cli(["deploy"]).done();
    assert!(said.ends_with("v2 is live\n"), "{said}");
    connect(&host, "shop.example", &newest, &[]).unwrap();
}

#[test]
fn ports_move_between_plain_and_https() {
    let shop = certify("shop.example");
    let formation = formation(&[("shop", &shop)])
        .replace("listen = []", "listen = \"127.0.0.1:0\"")
        .replace("name = \"test\"", "name = \"test\"\ndrain_delay = \"5m\"");
    let host = Host::run(&formation);
    let places = host.served_at();
    let address = |scheme: &str| -> SocketAddr {
        let place = places.iter().find_map(|place| place.strip_prefix(scheme)).unwrap();
        place.trim_end_matches('/').parse().unwrap()
    };
    let (mut plain, mut secure) = (address("http://"), address("https://"));
    // From any port to the ones that it got.
    let (before, tls) =
        formation.text().split_once("[http.tls]").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let text = |plain: SocketAddr, secure: SocketAddr| {
        let any = "127.0.0.1:0";
        let (before, tls) = (before.replace(any, &plain.to_string()), tls.replace(any, &secure.to_string()));
        format!("{before}[http.tls]{tls}")
    };
    let mut formation = formation;
    for _ in 0..3 {
        formation = formation.with_text(&text(plain, secure));
        host.cli(["deploy"]).done();
        let answer = exchange(shop.connect(secure, "shop.example", &[]).unwrap(), GET);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let answer = exchange(TcpStream::connect(plain).unwrap(), GET);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        (plain, secure) = (secure, plain);
    }
}

#[test]
fn certificates_that_can_not_be_used_are_told_at_the_start() {
    let (one, two) = (certify("one.example"), certify("two.example"));
    let formation = formation(&[("one", &one)]);
    fs::write(formation.path("one.key"), &two.key).unwrap();
    formation.run_to_end().failed(3, "one.key can't be used together");
    fs::write(formation.path("one.key"), "").unwrap();
    formation.run_to_end().failed(3, "one.key has no private key");
    fs::write(formation.path("one.pem"), "").unwrap();
    formation.run_to_end().failed(3, "one.pem has no certificate");
    fs::remove_file(formation.path("one.pem")).unwrap();
    formation.run_to_end().failed(3, "one.pem: No such file");
}

#[test]
fn a_handshake_that_is_never_finished_ends_by_itself() {
    use std::io::Read;
    let shop = certify("shop.example");
    let host = Host::run(
        &formation(&[("shop", &shop)]).replace("[http.tls]", "header_timeout = \"300ms\"\n[http.tls]"),
    );
    let mut silent = TcpStream::connect(address(&host)).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(silent.read(&mut [0; 1]).unwrap_or(0), 0);
    // Who speaks plainly there is refused, and hurts nobody.
    let answer = exchange(TcpStream::connect(address(&host)).unwrap(), GET);
    assert!(!answer.contains("HTTP/1.1"), "{answer}");
    connect(&host, "shop.example", &shop, &[]).unwrap();
}
