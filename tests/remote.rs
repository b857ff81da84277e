//! `-H` and `WASMHOST_HOST`: verbs that ask a host by its address.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;

use tempfile::TempDir;

use crate::harness::tls::{Certified, certify_all};
use crate::harness::{Ended, Formation, Host, Process, TOKEN, eventually};

/// A host, and a folder without any formation, where verbs are called.
struct Far {
    formation: Formation,
    host: Host,
    folder: TempDir,
    url: String,
}

impl Far {
    /// A host whose `[admin]` has TLS, by a certificate for its address.
    fn new(formation: Formation) -> Far {
        let formation = formation.admin().table("[admin.tls]\ncert = \"far.pem\"\nkey = \"far.key\"");
        let certified = certify_all(&["127.0.0.1", "far.example"]);
        certified.write(&formation, "far");
        let host = Host::run(&formation);
        let url = format!("https://{}", host.admin());
        Far { formation, host, folder: tempfile::tempdir().unwrap(), url }.with(&certified, TOKEN)
    }

    fn with(self, certified: &Certified, token: &str) -> Far {
        self.file("ca.pem", &certified.cert);
        self.file("token", token);
        self
    }

    fn file(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn start(&self, arguments: &[&str]) -> Process {
        let options = ["-H", &self.url, "--token-file", "token", "--ca", "ca.pem"];
        Process::start(self.folder.path(), options.iter().chain(arguments))
    }

    fn cli(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).wait()
    }

    /// The same with these alone.
    fn plain(&self, arguments: &[&str]) -> Ended {
        Process::start(self.folder.path(), arguments).wait()
    }

    fn with_variables(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
        let variables: Vec<(String, OsString)> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect();
        Process::start_with(self.folder.path(), arguments, "", &variables).wait()
    }

    fn address(&self) -> SocketAddr {
        self.url.trim_start_matches("https://").parse().unwrap()
    }
}

fn shop() -> Formation {
    let clock = "schedule = \"@yearly\"\ndirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    Formation::web("")
        .directory("out")
        .process("worker", "job-test", "queue = \"default\"\ncount = 0")
        .process("clock", "tick-test", clock)
}

#[test]
fn every_verb_that_asks_a_host_asks_one_elsewhere() {
    let far = Far::new(shop());
    let done = |arguments: &[&str]| far.cli(arguments).done();
    assert!(done(&["ps"]).contains(&format!("admin {}/", far.url)));
    assert!(done(&["ps", "--wait", "--json"]).contains("\"process\": \"clock\""));
    assert_eq!(done(&["scale", "web=3"]), "web=3 worker=0 clock=1\n");
    assert_eq!(done(&["scale"]), "wasmhost scale web=3 worker=0 clock=1\n");
    assert_eq!(done(&["restart", "web.1"]), "restarted 1 instance of web.1\n");
    let id = done(&["enqueue", "default", "payload"]);
    let id = id.trim();
    assert!(done(&["jobs", "ls"]).contains("default"));
    assert!(done(&["jobs", "show", id]).contains("payload"));
    assert_eq!(done(&["jobs", "pause", "default"]), "default is paused\n");
    assert_eq!(done(&["jobs", "resume", "default"]), "default is running\n");
    done(&["jobs", "stats"]);
    done(&["jobs", "cancel", id]);
    assert!(done(&["tick", "clock"]).starts_with("clock ran the tick of "));
    assert!(done(&["ticks", "clock"]).contains("clock"));
    assert!(done(&["logs", "host"]).contains("all instances are up"));
    done(&["logs", "web", "-n", "5"]);
    assert!(done(&["releases"]).contains("v1"));
    assert!(done(&["releases", "show", "v1", "--formation"]).contains("[process.web]"));
    far.cli(&["rollback"]).failed(1, "");
    far.cli(&["promote"]).failed(1, "no release is on canary");
    far.cli(&["abort"]).failed(1, "no release is on canary");
    let copy = far.folder.path().join("copy.db");
    done(&["jobs", "backup", copy.to_str().unwrap()]);
    assert!(copy.exists());
    far.cli(&["jobs", "backup", "copy2.db"]).failed(2, "is a file of the host's machine");
    done(&["stop"]);
    far.host.wait().done();
    let gone =
        Process::start(far.folder.path(), ["-H", &far.url, "--token-file", "token", "--ca", "ca.pem", "ps"]);
    gone.wait().failed(5, "can't reach a host at https://127.0.0.1:");
}

#[test]
fn logs_and_events_are_followed_from_afar() {
    let far = Far::new(Formation::web(""));
    let (events, logs) = (far.start(&["events"]), far.start(&["logs", "-f", "host"]));
    events.stderr.wait_for("following what changes");
    logs.stdout.wait_for("all instances are up");
    far.cli(&["scale", "web=2"]).done();
    events.stdout.wait_for("web 1 -> 2");
    logs.stdout.wait_for("scaled to web=2");
    far.host.stop().done();
    for follower in [events, logs] {
        follower.wait();
    }
}

#[test]
fn a_deploy_from_afar_takes_the_file_on_the_hosts_machine() {
    let far = Far::new(Formation::web(""));
    let formation = far.formation.replace("component", "timeout = \"7s\"\ncomponent");
    let options = ["-H", &far.url, "--token-file", "token", "--ca", "ca.pem"];
    let cli = |verb: &str| Process::start(far.folder.path(), options.iter().chain(&[verb])).wait();
    assert!(cli("deploy").done().ends_with("v2 is live\n"));
    assert_eq!(far.host.live(), 2);
    assert!(cli("rollback").done().contains("v3 is live"));
    drop(formation);
}

#[test]
fn variables_name_the_host_too() {
    let far = Far::new(Formation::web(""));
    let (token, ca) = (("WASMHOST_TOKEN_FILE", "token"), ("WASMHOST_CA", "ca.pem"));
    let host = ("WASMHOST_HOST", far.url.as_str());
    far.with_variables(&[host, token, ca], &["ps"]).done();
    // Options win over them.
    far.with_variables(&[("WASMHOST_HOST", "https://nowhere.invalid"), token, ca], &["ps", "-H", &far.url])
        .done();
    let nowhere = [host, ("WASMHOST_TOKEN_FILE", "nowhere"), ca];
    far.with_variables(&nowhere, &["--token-file", "token", "ps"]).done();
    // A formation that is named is meant.
    let file = far.formation.file().display().to_string();
    far.with_variables(&[host], &["-f", &file, "ps"]).done();
    far.with_variables(&[host], &["ps"]).failed(2, "--token-file or WASMHOST_TOKEN_FILE");
    far.with_variables(&[host], &["exec", "web"])
        .failed(2, "`exec` runs a command on the machine that it is called on");
    // Verbs for this machine are for this machine.
    far.with_variables(&[host], &["check", &file]).done();
}

#[test]
fn a_host_that_is_not_trusted_is_sent_no_token() {
    let far = Far::new(Formation::web(""));
    let port = far.address().port();
    let ps = |url: &str, more: &[&str]| {
        let arguments = [&["-H", url, "--token-file", "token"], more, &["ps"]].concat();
        far.plain(&arguments)
    };
    ps(&far.url, &[]).failed(1, "isn't trusted: it isn't from public authorities; --ca names");
    far.file("other.pem", &certify_all(&["127.0.0.1"]).cert);
    ps(&far.url, &["--ca", "other.pem"])
        .failed(1, "isn't trusted: it isn't from the certificates in other.pem");
    ps(&format!("https://localhost:{port}"), &["--ca", "ca.pem"])
        .failed(1, "is for another name than localhost");
    ps(&format!("http://127.0.0.1:{port}"), &[]).failed(1, "");
    assert_eq!(far.host.stderr().count("wrong token"), 0);
    ps(&format!("http://192.0.2.1:{port}"), &[]).failed(2, "would pass the network in clear");
    far.file("empty.pem", "");
    ps(&far.url, &["--ca", "empty.pem"]).failed(2, "has no certificate in it");
    ps(&far.url, &["--ca", "none.pem"]).failed(2, "can't read none.pem");
    ps("https://me:secret@shop.example", &[]).failed(2, "a token is read from the file");
    ps("shop.example", &[]).failed(2, "-H: found \"shop.example\", expected https://HOST:PORT");
}

#[test]
fn a_token_that_is_not_taken_is_told_with_its_file() {
    let far = Far::new(Formation::web(""));
    far.file("token", "a-wrong-token-0123456789abcdef0123456789");
    for arguments in [&["ps"][..], &["scale", "web=2"], &["logs", "-f"], &["events"], &["deploy"], &["stop"]]
    {
        let ended = far
            .cli(arguments)
            .failed(1, "doesn't take the token in token: the token is not the one of [admin]");
        assert!(!ended.stderr.contains("0123456789"), "{ended:#?}");
    }
    assert_eq!(far.host.ps().number("web", "desired"), 1);
    far.file("token", "short");
    far.cli(&["ps"]).failed(2, "the token in token has 5 characters, expected at least 32");
    fs::remove_file(far.folder.path().join("token")).unwrap();
    far.cli(&["ps"]).failed(2, "can't read the token file token");
}

#[test]
fn verbs_that_ask_no_host_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let cli = |arguments: &[&str]| Process::start(folder.path(), arguments).wait();
    let url = "https://shop.example";
    for arguments in [
        &["run"][..],
        &["check"],
        &["compile", "web.wasm"],
        &["init"],
        &["import", "Procfile"],
        &["export", "procfile"],
        &["completions", "bash"],
    ] {
        let verb = arguments[0];
        let ended = cli(&[&["-H", url], arguments].concat());
        ended.failed(2, &format!("`{verb}` works on files of this machine"));
    }
    cli(&["-H", url, "exec", "web"]).failed(2, "`exec` runs a command on the machine");
    cli(&["-H", url, "-f", "formation.toml", "ps"]).failed(2, "leave one of the two out");
    cli(&["--token-file", "token", "ps"]).failed(2, "--token-file belongs to a host that -H");
    cli(&["-H", url, "ps"]).failed(2, "asks for the token of its [admin]");
}

#[test]
fn the_socket_of_a_host_can_be_named_without_its_formation() {
    let formation = Formation::web("");
    let host = Host::run(&formation);
    let folder = tempfile::tempdir().unwrap();
    let (state, socket) = (formation.path(".wasmhost"), formation.path(".wasmhost/admin.sock"));
    for path in [&state, &socket] {
        let at = format!("unix:{}", path.display());
        let cli =
            |arguments: &[&str]| Process::start(folder.path(), [&["-H", &at], arguments].concat()).wait();
        assert!(cli(&["ps"]).done().contains("web"));
        cli(&["logs", "-n", "1"]).done();
    }
    let at = format!("unix:{}", socket.display());
    Process::start(folder.path(), ["-H", &at, "stop"]).wait().done();
    host.wait().done();
    Process::start(folder.path(), ["-H", &at, "ps"]).wait().failed(5, "no host listens on ");
}

#[test]
fn a_host_on_this_machine_is_asked_without_a_certificate() {
    let formation = Formation::web("").admin();
    let host = Host::run(&formation);
    let folder = tempfile::tempdir().unwrap();
    let token = formation.path("admin.token").display().to_string();
    for name in ["127.0.0.1", "localhost"] {
        let url = format!("http://{name}:{}", host.admin().port());
        Process::start(folder.path(), ["-H", &url, "--token-file", &token, "ps"]).wait().done();
        let ended = Process::start(
            folder.path(),
            ["-H", &url.replace("http:", "https:"), "--token-file", &token, "ps"],
        );
        ended.wait().failed(1, "doesn't speak TLS");
    }
    host.terminate();
    eventually("it is gone", || {
        let url = format!("http://{}", host.admin());
        let ended = Process::start(folder.path(), ["-H", &url, "--token-file", &token, "ps"]).wait();
        (ended.code == 5).then_some(())
    });
}
