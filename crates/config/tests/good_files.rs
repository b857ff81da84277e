//! Files that are right: what is read from them, and that what is shown reads back.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wasmhost_config::*;

fn read_with(file: &str, dotenv: Option<&str>) -> Formation {
    let environment = |name: &str| (name == "STRIPE_KEY").then(|| OsString::from("sk_live"));
    let origin = Origin {
        file: Path::new("sub/formation.toml"),
        folder: Path::new("/srv/shop"),
        environment: &environment,
        dotenv,
    };
    parse(file, &origin).unwrap_or_else(|error| panic!("{error}\n{file}"))
}

fn read(file: &str) -> Formation {
    read_with(file, None)
}

#[test]
fn the_smallest_file_has_every_default() {
    let formation = read("[process.web]\ncomponent = \"web.wasm\"");
    let expected = Formation {
        name: "shop".to_owned(),
        file: "/srv/shop/formation.toml".into(),
        state_dir: "/srv/shop/.wasmhost".into(),
        max_instances: None,
        grace: Duration::from_secs(30),
        drain_delay: Duration::ZERO,
        http: Http::default(),
        health: None,
        admin: None,
        store: StoreUrl::Sqlite("/srv/shop/.wasmhost/store.db".into()),
        keep_releases: 10,
        retention: Retention {
            done_for: Duration::from_hours(1),
            done_max: 100_000,
            dead_for: Duration::from_hours(180 * 24),
            dead_max: 10_000,
        },
        compile: CompileLimits { memory_bytes_max: 4 << 30, cpu: Duration::from_mins(5) },
        queues: Default::default(),
        processes: vec![ProcessType {
            name: "web".to_owned(),
            component: "/srv/shop/web.wasm".into(),
            build: None,
            trust_cwasm: false,
            missing_imports_trap: false,
            args: vec![],
            count: 1,
            trigger: None,
            memory_bytes_max: 134_217_728,
            timeout: None,
            cpu: None,
            weight: 1,
            concurrency: None,
            isolation: None,
            max_calls: None,
            max_age: None,
            backlog: None,
            queue_timeout: Duration::from_secs(5),
            body_bytes_max: None,
            log_bytes_per_second: 16 << 20,
            ready: None,
            attempts: 25,
            backoff: vec![],
            grants: Grants::default(),
        }],
        secret_files: vec![],
        written: Written::default(),
        source: Source::default(),
    };
    assert_eq!(formation, expected);
    assert_eq!(formation.processes[0], ProcessType::new("web", PathBuf::from("/srv/shop/web.wasm")));
}

const WHOLE: &str = r#"
name = "shop"
max_instances = 2_000
state_dir = "/var/lib/shop"
grace = "1m"
drain_delay = "500ms"
keep_releases = 1_000

[http]
listen = ["[::1]:0", "unix:run/shop.sock", "fd:web", "systemd"]
socket_mode = "0600"
header_timeout = "5s"
idle_timeout = "2m"
body_timeout = "1m"
max_header = "16KiB"
max_connections = 100
max_connections_per_address = 20
max_streams = 10
trusted_proxies = ["10.0.0.0/8", "192.0.2.1", "fd00::/8", "unix"]
access_log = "json"
[http.tls]
listen = "0.0.0.0:8443"
cert = ["a.pem", "/etc/b.pem"]
key = ["a.key", "/etc/b.key"]

[health]
listen = ["127.0.0.1:9090", "fd:probes"]

[admin]
listen = ["127.0.0.1:9443", "[::]:9443"]
token = "/run/secrets/admin.token"
tls = { cert = "admin.pem", key = "admin.key" }

[store]
keep_done = "0s"
keep_dead = "365d"
keep_dead_max = 50

[queues.mail]
max_depth = 100_000
max_bytes = "64MiB"
max_per_second = 500
concurrency = 4
[queues.idle]

[process.web]
component = "./build/web.wasm"
count = 4
route = ["/", "API.example.com/v1/", "shop/"]
memory = "64MB"
timeout = "10s"
cpu = "500ms"
weight = 3
concurrency = 16
isolation = "call"
max_calls = 100_000
max_age = "30d"
backlog = 0
queue_timeout = "0s"
max_body = "10MB"
max_log = "1MB/s"
ready = "/healthz?full=1%20"
env = { Z = "last first", A = "$${HOME} costs $5", "dotted.key" = "two\nlines \"quoted\" \\ \u0007" }
dirs = [{ host = "public", guest = "/public" }, { host = "../shared", guest = "/shared", access = "write", max_bytes = "1GiB" }]
outbound = ["https://api.stripe.com", "postgres.internal:5432", "http://[::1]", "*.example.com:25"]
enqueue = ["default", "mail"]

[process.worker]
component = "/opt/worker.wasm"
queue = { default = 3, mail = 1 }
attempts = 5
backoff = ["0s", "10s", "1h30m"]
isolation = "instance"
network = "all"

[process.mailer]
component = "mailer.cwasm"
trust_cwasm = true
queue = "mail"
count = 0

[process.clock]
component = "clock.wasm"
schedule = "*/5 * * * *"
time_zone = "europe/berlin"
jitter = "1h"
missed = "all"
overlap = "allow"

[process.often]
component = "clock.wasm"
every = "1m30s"
jitter = "1m29s"
missed = "skip"

[process.daily]
component = "clock.wasm"
schedule = "@daily"

[process.migrate]
component = "tools.wasm"
args = ["migrate", "", "${STRIPE_KEY}"]
run = "release"

[process.console]
component = "tools.wasm"
run = "never"
"#;

#[test]
fn a_file_with_everything_is_read() {
    let formation = read(WHOLE);
    let names: Vec<&str> = formation.processes.iter().map(|process| process.name.as_str()).collect();
    assert_eq!(names, ["web", "worker", "mailer", "clock", "often", "daily", "migrate", "console"]);
    assert_eq!(formation.store, StoreUrl::Sqlite("/var/lib/shop/store.db".into()));
    assert_eq!(formation.queues["idle"], Queue::default());
    assert_eq!(
        formation.queues["mail"],
        Queue {
            max_depth: Some(100_000),
            max_bytes: 64 << 20,
            max_per_second: Some(500),
            concurrency: Some(4)
        }
    );
    let kept = formation.retention;
    assert_eq!((kept.done_for, kept.done_max), (Duration::ZERO, 100_000));
    assert_eq!((kept.dead_for, kept.dead_max), (Duration::from_hours(365 * 24), 50));

    let trusted: Vec<bool> = formation.processes.iter().map(|process| process.trust_cwasm).collect();
    assert_eq!(trusted, [false, false, true, false, false, false, false, false]);
    let web = formation.process("web").unwrap();
    assert_eq!(web.component, Path::new("/srv/shop/build/web.wasm"));
    assert_eq!(web.memory_bytes_max, 64_000_000);
    assert_eq!((web.cpu, web.isolation), (Some(Duration::from_millis(500)), Some(Isolation::Call)));
    assert_eq!((web.weight, web.concurrency), (3, Some(16)));
    assert_eq!((web.max_calls, web.max_age), (Some(100_000), Some(Duration::from_hours(30 * 24))));
    let Some(Trigger::Http { routes }) = &web.trigger else { panic!("{:?}", web.trigger) };
    assert_eq!(routes[1], Route { host: Some("api.example.com".to_owned()), path: "/v1".to_owned() });
    let env: Vec<(&str, &str)> = web.grants.env.iter().map(|v| (v.name.as_str(), v.value.as_str())).collect();
    assert_eq!(
        env,
        [("Z", "last first"), ("A", "${HOME} costs $5"), ("dotted.key", "two\nlines \"quoted\" \\ \u{7}")]
    );
    assert_eq!(web.grants.dirs[1].host, Path::new("/srv/shop/../shared"));
    assert!(web.grants.dirs[1].writable && !web.grants.dirs[0].writable);
    assert_eq!((web.grants.dirs[0].bytes_max, web.grants.dirs[1].bytes_max), (None, Some(1 << 30)));

    let http = &formation.http;
    assert_eq!(http.listen[1], Listen::Unix("/srv/shop/run/shop.sock".into()));
    assert_eq!((http.socket_mode, http.header_bytes_max), (0o600, 16 << 10));
    let probes = Listen::HandedOver(Some("probes".to_owned()));
    assert_eq!(formation.health.as_ref().unwrap().listen[1], probes);
    let admin = formation.admin.as_ref().unwrap();
    assert_eq!(admin.token, Path::new("/run/secrets/admin.token"));
    let own = CertificateFiles { cert: "/srv/shop/admin.pem".into(), key: "/srv/shop/admin.key".into() };
    assert_eq!(admin.tls, Some(AdminTls::Own(vec![own])));
    let tls = http.tls.as_ref().unwrap();
    assert_eq!(tls.certificates[0].key, Path::new("/srv/shop/a.key"));
    assert_eq!(tls.certificates[1].cert, Path::new("/etc/b.pem"));
    assert!(http.trusted_proxies.contains(Some("192.0.2.1".parse().unwrap())));
    assert_eq!(web.body_bytes_max, Some(10_000_000));
    assert_eq!(web.log_bytes_per_second, 1_000_000);
    assert_eq!(web.ready.as_deref(), Some("/healthz?full=1%20"));
    assert_eq!(formation.keep_releases, 1_000);

    let queues = vec![("default".to_owned(), 3), ("mail".to_owned(), 1)];
    assert_eq!(formation.process("worker").unwrap().trigger, Some(Trigger::Queue { queues }));
    let Some(Trigger::Schedule(schedule)) = &formation.process("clock").unwrap().trigger else { panic!() };
    let (expression, time_zone) = ("*/5 * * * *".to_owned(), "Europe/Berlin".to_owned());
    assert_eq!(schedule.times, Times::Cron { expression, time_zone });
    assert_eq!(schedule.jitter, Duration::from_hours(1));
    let often = Schedule {
        times: Times::Every(Duration::from_secs(90)),
        jitter: Duration::from_secs(89),
        missed: Missed::Skip,
        overlap: Overlap::Skip,
    };
    assert_eq!(formation.process("often").unwrap().trigger, Some(Trigger::Schedule(often)));
    let waits = [0, 10, 5_400].map(Duration::from_secs);
    assert_eq!(formation.process("worker").unwrap().backoff, waits);
    assert_eq!(formation.process("migrate").unwrap().args, ["migrate", "", "sk_live"]);
}

#[test]
fn what_is_shown_reads_back_as_the_same_formation() {
    let formation = read(WHOLE);
    assert_eq!(read(&formation.to_toml()), formation);
}

#[test]
fn a_formation_is_shown_in_the_files_own_shape() {
    let file = r#"
        [process.web]
        component = "web.wasm"
        route = "/"
        env = { B = "b", KEY = { from_env = "STRIPE_KEY" } }
        [process.other]
        component = "${COMPONENT:-other.wasm}"
    "#;
    let expected = r#"name = "shop"
state_dir = "/srv/shop/.wasmhost"
grace = "30s"
drain_delay = "0s"
keep_releases = 10

[http]
listen = "127.0.0.1:8080"
socket_mode = "0660"
header_timeout = "10s"
idle_timeout = "1m15s"
body_timeout = "30s"
max_header = "64KiB"
max_connections = 10000
max_connections_per_address = 5000
max_streams = 100
trusted_proxies = []
access_log = "off"

[store]
url = "sqlite:/srv/shop/.wasmhost/store.db"
keep_done = "1h"
keep_done_max = 100000
keep_dead = "180d"
keep_dead_max = 10000

[compile]
memory = "4GiB"
cpu = "5m"

[process.web]
component = "/srv/shop/web.wasm"
count = 1
route = "/"
memory = "128MiB"
weight = 1
queue_timeout = "5s"
max_log = "16MiB/s"
env = { B = "b", KEY = "(secret)" }

[process.other]
component = "/srv/shop/other.wasm"
count = 1
memory = "128MiB"
weight = 1
queue_timeout = "5s"
max_log = "16MiB/s"
"#;
    assert_eq!(read(file).to_toml(), expected);
}

#[test]
fn a_secret_is_read_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "t0ken\n\n").unwrap();
    let file = format!(
        "[process.web]\ncomponent = \"w.wasm\"\n\
         env = {{ HOST = {{ from_env = \"STRIPE_KEY\" }}, DOTENV = {{ from_env = \"D\" }}, \
         FILE = {{ file = {token:?} }} }}"
    );
    let formation = read_with(&file, Some("D=dotenv\nSTRIPE_KEY=the host wins"));
    let env = &formation.processes[0].grants.env;
    let values: Vec<&str> = env.iter().map(|variable| variable.value.as_str()).collect();
    assert_eq!(values, ["sk_live", "dotenv", "t0ken\n"]);
    assert!(env.iter().all(|variable| variable.secret));
    for shown in [formation.to_toml(), format!("{formation:?}"), serde_json::to_string(&formation).unwrap()] {
        assert!(!shown.contains("sk_live") && !shown.contains("t0ken"), "{shown}");
    }
}

#[test]
fn a_string_with_variables_is_shown_as_it_was_written() {
    let file = r#"name = "n${STRIPE_KEY}"
state_dir = "/state/${D}"

[http]
listen = ["127.0.0.1:0", "unix:/run/${D}.sock"]
trusted_proxies = ["unix", "${PROXY}"]

[store]
url = "sqlite:/${D}/s.db"

[process.web]
component = "/${D}/w.wasm"
args = ["--key", "${STRIPE_KEY}", "$${D}"]
route = ["${HOST}/${D}", "/other"]
memory = "${SIZE}"
env = { PLAIN = "text", KEY = "<${STRIPE_KEY}>", "dotted.key" = "${D:-none}" }
dirs = [{ host = "/plain", guest = "/plain" }, { host = "/${D}", guest = "/${D}" }]
outbound = ["https://${HOST}"]

[process.worker]
component = "/w.wasm"
queue = "${D}"
enqueue = ["${D}"]
"#;
    let dotenv = "D=dot-env
HOST=Secret.example
SIZE=64MiB
PROXY=10.0.0.0/8";
    let formation = read_with(file, Some(dotenv));
    assert_eq!(formation.processes[0].args, ["--key", "sk_live", "${D}"]);
    let (toml, json) = (formation.to_toml(), serde_json::to_string(&formation).unwrap());
    for shown in [&toml, &json, &format!("{:?}", formation.processes[0].grants.env)] {
        for value in ["sk_live", "dot-env", "secret.example", "Secret.example"] {
            assert!(!shown.contains(value), "{value} in {shown}");
        }
    }
    for line in
        file.lines().filter(|line| line.contains("${") && !line.contains("SIZE") && !line.contains("PROXY"))
    {
        let (key, value) = line.split_once(" = ").unwrap();
        for word in value.split(['"', '[', ']', '{', '}', ',']).filter(|word| word.contains("${")) {
            assert!(toml.contains(word), "{key}: {word} in {toml}");
        }
        assert!(toml.contains(&format!("{key} = ")), "{line} in {toml}");
    }
    // A value that can't be a secret is shown as it is understood.
    assert!(
        toml.contains("memory = \"64MiB\"") && toml.contains("trusted_proxies = [\"10.0.0.0/8\", \"unix\"]")
    );
    // The text is the same formation.
    let again = read_with(&toml, Some(dotenv));
    assert_eq!((again.to_toml(), &again), (toml, &formation));
}

#[test]
fn the_state_directory_is_named_by_the_file() {
    let state = |file: &str| default_state_dir(Path::new(file)).display().to_string();
    assert_eq!(state("/srv/shop/formation.toml"), "/srv/shop/.wasmhost");
    assert_eq!(state("/srv/shop/many.toml"), "/srv/shop/.wasmhost-many");
    assert_eq!(state("/srv/shop/a.b.toml"), "/srv/shop/.wasmhost-a.b");
    assert_eq!(state("/srv/shop/formation"), "/srv/shop/.wasmhost-formation");
    assert_eq!(state("/srv/shop/formation.toml.bak"), "/srv/shop/.wasmhost-formation.toml.bak");
}

#[test]
fn process_types_keep_the_files_order_however_their_tables_are_split() {
    let file = "[process.b.env]\nX = \"1\"\n[process.c]\ncomponent = \"c\"\n[process.a]\ncomponent = \"a\"\n\
                [[process.a.dirs]]\nhost = \"h\"\nguest = \"/g\"\n[process.b]\ncomponent = \"b\"\n";
    let names: Vec<String> = read(file).processes.into_iter().map(|process| process.name).collect();
    assert_eq!(names, ["c", "a", "b"]);
}

#[test]
fn a_file_is_loaded_with_the_dotenv_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("formation.toml");
    std::fs::write(&path, "name = \"${WASMHOST_TEST_NAME}\"\n[process.web]\ncomponent = \"web.wasm\"\n")
        .unwrap();
    std::fs::write(folder.path().join(".env"), "export WASMHOST_TEST_NAME='from .env'\n").unwrap();
    let formation = load(&path).unwrap();
    assert_eq!(formation.name, "from .env");
    assert_eq!(formation.file, path);
    assert_eq!(formation.processes[0].component, folder.path().join("web.wasm"));
}

#[test]
fn a_formation_is_restored_from_the_texts_it_was_loaded_from() {
    let folder = tempfile::tempdir().unwrap();
    let (path, dotenv) = (folder.path().join("shop.toml"), folder.path().join(".env"));
    let text = "name = \"${WASMHOST_TEST_RESTORED}\"\r\n[process.web] # web\ncomponent = \"web.wasm\"\n";
    std::fs::write(&path, text).unwrap();
    std::fs::write(&dotenv, "WASMHOST_TEST_RESTORED=first").unwrap();
    let loaded = load(&path).unwrap();
    let Source { text: kept, dotenv: kept_dotenv } = &loaded.source;
    assert_eq!((kept.as_str(), kept_dotenv.as_deref()), (text, Some("WASMHOST_TEST_RESTORED=first")));
    assert!(!format!("{loaded:?}").contains("WASMHOST_TEST_RESTORED=first"));
    // Whatever became of the files since.
    std::fs::write(&path, "[process.api]\ncomponent = \"api.wasm\"").unwrap();
    std::fs::remove_file(&dotenv).unwrap();
    assert_eq!(restore(&path, &loaded.source).unwrap(), loaded);
    assert_eq!((loaded.name.as_str(), &loaded.file), ("first", &path));
    assert_eq!(loaded.state_dir, folder.path().join(".wasmhost-shop"));
    assert_eq!(load(&path).unwrap().source.dotenv, None);
    // Problems are told of the file as its user named it.
    let wrong = Source { text: "nmae = 1".to_owned(), dotenv: Some("oops".to_owned()) };
    let problems = restore(&path, &wrong).unwrap_err().to_string();
    assert!(
        problems.contains("shop.toml:1:1: nmae: unknown key") && problems.contains(".env:1:1"),
        "{problems}"
    );
    assert!(restore(&path, &Source::default()).unwrap_err().to_string().contains("no process types"));
}

#[test]
fn what_is_no_formation_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("formation.toml");
    let shown = missing.display();
    assert_eq!(
        load(&missing).unwrap_err().to_string(),
        format!(
            "{shown}: no such file (looked at {shown}); expected a formation file: name it with `-f FILE`"
        )
    );
    assert!(matches!(load(folder.path()), Err(LoadError::IsDirectory { .. })));
    let said = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let said = load(&path).unwrap_err().to_string();
        said.strip_prefix(&format!("{}:", path.display())).unwrap_or(&said).to_owned()
    };
    assert!(said("web.wasm", b"\0asm\x0d\0\x01\0").starts_with("1:1: found WebAssembly"));
    assert_eq!(
        said("latin1.toml", b"a = 1\nb = \"\xe4\"\n"),
        "2:6: found a byte that isn't UTF-8, expected text"
    );
}

#[test]
fn the_admin_api_has_the_certificates_of_http_where_it_has_none_of_its_own() {
    let tls = "[http.tls]\nlisten = \"0.0.0.0:8443\"\ncert = \"a.pem\"\nkey = \"a.key\"\n";
    let admin = "[admin]\nlisten = [\"127.0.0.1:9443\", \"0.0.0.0:9444\"]\ntoken = \"admin.token\"\n";
    let formation = read(&format!("{tls}{admin}[process.web]\ncomponent = \"web.wasm\""));
    let admin = formation.admin.as_ref().unwrap();
    assert_eq!(admin.certificates().unwrap(), formation.http.tls.as_ref().unwrap().certificates);
    assert_eq!(admin.listen.iter().map(|place| admin.is_tls(place)).collect::<Vec<_>>(), [false, true]);
    assert!(!formation.to_toml().contains("[admin.tls]"));
    assert_eq!(read(&formation.to_toml()), formation);
}
