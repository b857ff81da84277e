//! Files of unix sockets that somebody deletes while the host listens there: they are made again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::harness::{Formation, Host, TOKEN, eventually};
use crate::ingress_listen::exchange;

/// An answer's first line, once there is somebody who answers.
#[track_caller]
fn asked(path: &Path, target: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let stream = eventually("somebody listens there", || UnixStream::connect(path).ok());
    exchange(stream, request.as_bytes()).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn the_admin_socket_is_made_again_and_verbs_wait_for_it() {
    let formation = Formation::web("");
    let host = Host::run(&formation);
    let socket = formation.path(".wasmhost/admin.sock");
    for _ in 0..3 {
        fs::remove_file(&socket).unwrap();
        assert!(formation.cli(["ps"]).done().contains("web.1"));
    }
    host.stderr().wait_for("/admin.sock was gone: it is made again");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    // Another file in its place is none of the host's.
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "mine").unwrap();
    formation.cli(["scale", "web=2"]).done();
    formation.run_to_end().failed(3, "another wasmhost runs this formation already");
    host.stop().done();
    assert!(!socket.exists());
}

#[test]
fn verbs_that_cannot_reach_a_host_do_not_say_that_there_is_none() {
    let formation = Formation::web("");
    let host = Host::run(&formation);
    let socket = formation.path(".wasmhost/admin.sock");
    fs::remove_file(&socket).unwrap();
    // The host can't put its own there.
    fs::create_dir(&socket).unwrap();
    let said = formation.cli(["ps"]).failed(5, "admin.sock is gone, and is not made again within 5 s");
    assert!(!said.stderr.contains("no host runs"), "{said:#?}");
    formation.run_to_end().failed(3, "another wasmhost runs this formation already");
    assert_eq!(host.stderr().count("can't be made again"), 1, "{}", host.stderr().text());
    fs::remove_dir(&socket).unwrap();
    assert!(formation.cli(["ps"]).done().contains("web.1"));
    host.stop().done();
    formation.cli(["ps"]).failed(5, "no host runs");
}

#[test]
fn sockets_for_requests_probes_and_the_admin_api_are_made_again() {
    let formation = Formation::web("")
        .http("listen = \"unix:app.sock\"\nsocket_mode = \"0620\"")
        .table("[health]\nlisten = \"unix:health.sock\"")
        .with_token("admin.token", TOKEN)
        .table("[admin]\nlisten = \"unix:api.sock\"\ntoken = \"admin.token\"");
    let host = Host::run(&formation);
    let [app, health, api] = ["app.sock", "health.sock", "api.sock"].map(|name| formation.path(name));
    let answer = || {
        assert_eq!(asked(&app, "/ok"), "HTTP/1.1 200 OK");
        assert_eq!(asked(&health, "/livez"), "HTTP/1.1 200 OK");
        assert_eq!(asked(&api, "/v1/formation"), "HTTP/1.1 401 Unauthorized");
    };
    answer();
    let mode = fs::metadata(&app).unwrap().permissions().mode();
    for _ in 0..2 {
        for path in [&app, &health, &api] {
            fs::remove_file(path).unwrap();
        }
        answer();
    }
    assert_eq!(fs::metadata(&app).unwrap().permissions().mode(), mode);
    for path in [&app, &health, &api] {
        let name = path.file_name().unwrap().to_str().unwrap();
        let said = format!("/{name} was gone: it is made again");
        eventually("it was told twice", || (host.stderr().count(&said) == 2).then_some(()));
    }
    // A release that stays there has them too, also where the file is gone as it comes.
    fs::remove_file(&app).unwrap();
    let formation = formation.replace("0620", "0660");
    host.cli(["deploy"]).done();
    answer();
    assert_eq!(fs::metadata(&app).unwrap().permissions().mode() & 0o777, 0o660);
    host.stop().done();
    assert!(!app.exists() && !health.exists() && !api.exists());
    drop(formation);
}
