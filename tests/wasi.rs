//! The promises of WASI, by guests that judge themselves.

use std::fs;
use std::net::TcpListener;

use crate::run_app::{App, Served};

/// Runs each case of an area in a process and folders of its own.
fn try_area(guest: &str, area: &str, grants: &[&str], arguments: &[&str]) {
    let cases = App::new().run(guest, &["list", area]).done();
    let mut failed = Vec::new();
    for case in cases.lines() {
        let app = App::new();
        fs::create_dir_all(app.path("rw")).unwrap();
        fs::create_dir_all(app.path("ro/dir")).unwrap();
        fs::write(app.path("ro/file"), "read me").unwrap();
        fs::write(app.path("outside"), "not granted").unwrap();
        let all: Vec<_> = grants.iter().chain(&["--", case]).chain(arguments).copied().collect();
        let ended = app.run(guest, &all);
        if ended.code != 0 {
            failed.push(format!("{case}: {} {}{}", ended.code, ended.stdout, ended.stderr));
        }
        assert_eq!(fs::read_to_string(app.path("outside")).unwrap(), "not granted", "{case}");
        assert_eq!(fs::read_to_string(app.path("ro/file")).unwrap(), "read me", "{case}");
    }
    assert!(failed.is_empty(), "of {} cases these failed:\n{}", cases.lines().count(), failed.join("\n"));
    assert!(cases.lines().count() >= 5, "{cases}");
}

const DIRS: [&str; 4] = ["--dir", "rw::/w", "--dir", "ro::/ro::ro"];

macro_rules! wasi {
    ($($version:ident: $guest:literal;)*) => {$(
        mod $version {
            use super::*;

            #[test]
            fn cli() {
                let env = ["--env", "A=1", "--env", "EMPTY=", "--env", "U=ü"];
                try_area($guest, "cli", &env, &["a b", "", "ü", "--x"]);
            }

            #[test]
            fn clocks() {
                try_area($guest, "clocks", &[], &[]);
            }

            #[test]
            fn random() {
                try_area($guest, "random", &[], &[]);
            }

            #[test]
            fn filesystem() {
                try_area($guest, "filesystem", &DIRS, &[]);
            }

            #[test]
            fn sockets() {
                try_area($guest, "sockets", &["--network"], &[]);
                let denied = App::new().run($guest, &["sockets/denied_without_a_grant", "denied"]);
                assert_eq!(denied.code, 0, "{denied:#?}");
            }

            #[test]
            fn http() {
                let service = Served::start(concat!($guest, "-service"), &["--count", "4"]);
                let address = service.address.to_string();
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let silent = listener.local_addr().unwrap().to_string();
                let outbound = [
                    format!("http://{address}"),
                    format!("https://{address}"),
                    format!("http://{silent}"),
                    format!("https://{silent}"),
                    "http://127.0.0.1:1".to_owned(),
                    "http://nobody.invalid".to_owned(),
                ];
                let grants: Vec<_> = outbound.iter().flat_map(|url| ["--outbound", url]).collect();
                try_area($guest, "http", &grants, &[&address, &silent]);
            }
        }
    )*};
}

wasi! {
    wasi_0_2: "wasi02";
    wasi_0_3: "wasi03";
}
