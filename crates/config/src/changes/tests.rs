use super::*;
use crate::{Origin, parse};
use std::ffi::OsString;
use std::path::Path;

fn read_with(text: &str, environment: &[(&str, &str)]) -> Formation {
    let environment = |name: &str| {
        environment.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
    };
    let origin = Origin {
        file: Path::new("formation.toml"),
        folder: Path::new("/srv/shop"),
        environment: &environment,
        dotenv: None,
    };
    parse(text, &origin).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn read(text: &str) -> Formation {
    read_with(text, &[])
}

fn between(old: &str, new: &str) -> Changes {
    Changes::between(&read(old), &read(new), &|_| false)
}

/// How a type differs that has these keys beside its component.
fn of_type(old: &str, new: &str) -> (How, Vec<String>) {
    let file = |keys: &str| format!("[process.web]\ncomponent = \"web.wasm\"\n{keys}");
    let mut changes = between(&file(old), &file(new));
    assert!(changes.refused.is_empty() && changes.http.is_empty() && changes.others.is_empty());
    assert_eq!(changes.types.len(), 1, "{old} -> {new}: {changes:?}");
    let change = changes.types.remove(0);
    assert_eq!(change.process, "web");
    (change.how, change.what)
}

#[test]
fn settings_change_under_instances_that_stay() {
    for (old, new, line) in [
        ("", "build = \"make web\"", "build none -> \"make web\""),
        ("count = 2", "count = 4", "count 2 -> 4"),
        ("route = \"/\"", "route = \"/v1\"", "route / -> /v1"),
        ("route = \"/\"", "route = [\"/\", \"api.example.com/v1\"]", "route / -> /, api.example.com/v1"),
        ("queue = \"mail\"", "queue = { default = 3, mail = 1 }", "queue mail -> default=3, mail=1"),
        ("queue = \"a\"\nattempts = 3", "queue = \"a\"", "attempts 3 -> 25"),
        ("queue = \"a\"", "queue = \"a\"\nbackoff = [\"1s\", \"1m\"]", "backoff none -> 1s, 1m"),
        ("schedule = \"@daily\"", "schedule = \"0 4 * * *\"", "schedule @daily -> \"0 4 * * *\""),
        ("every = \"1m\"", "every = \"90s\"", "every 1m -> 1m30s"),
        ("every = \"1m\"", "schedule = \"@daily\"", "trigger every 1m -> schedule @daily"),
        ("every = \"1m\"", "every = \"1m\"\nmissed = \"all\"", "missed one -> all"),
        ("every = \"1m\"", "every = \"1m\"\noverlap = \"allow\"", "overlap skip -> allow"),
        ("every = \"1m\"", "every = \"1m\"\njitter = \"1s\"", "jitter 0s -> 1s"),
        ("", "timeout = \"5s\"", "timeout default -> 5s"),
        ("cpu = \"1s\"", "", "cpu 1s -> none"),
        ("", "weight = 4", "weight 1 -> 4"),
        ("backlog = 5", "backlog = 6", "backlog 5 -> 6"),
        ("", "queue_timeout = \"1s\"", "queue_timeout 5s -> 1s"),
        ("", "max_body = \"1MiB\"", "max_body none -> 1MiB"),
        ("", "ready = \"/healthz\"", "ready none -> /healthz"),
    ] {
        assert_eq!(of_type(old, new), (How::Settings, vec![line.to_owned()]), "{old} -> {new}");
    }
}

#[test]
fn what_an_instance_is_made_of_takes_new_instances() {
    for (old, new, line) in [
        ("", "trust_cwasm = true", "trust_cwasm false -> true"),
        ("", "missing_imports = \"trap\"", "missing_imports refuse -> trap"),
        ("", "args = [\"-v\", \"two words\", \"\"]", "args none -> -v, \"two words\", \"\""),
        ("", "memory = \"256MiB\"", "memory 128MiB -> 256MiB"),
        ("env = { LOG = \"info\" }", "env = { LOG = \"debug\" }", "env LOG"),
        ("", "env = { LOG = \"info\" }", "env LOG added"),
        ("env = { LOG = \"info\" }", "", "env LOG removed"),
        ("", "dirs = [{ host = \"pub\", guest = \"/p\" }]", "dirs /p /srv/shop/pub added"),
        (
            "dirs = [{ host = \"pub\", guest = \"/p\" }]",
            "dirs = [{ host = \"/www\", guest = \"/p\", access = \"write\" }]",
            "dirs /p /srv/shop/pub -> /www (write)",
        ),
        ("dirs = [{ host = \"pub\", guest = \"/p\" }]", "", "dirs /p removed"),
        ("", "outbound = [\"https://a.b\"]", "outbound none -> https://a.b:443"),
        ("", "network = \"all\"", "network none -> all"),
        ("enqueue = [\"a\"]", "enqueue = [\"a\", \"b\"]", "enqueue a -> a, b"),
        ("", "concurrency = 4", "concurrency default -> 4"),
        ("", "max_log = \"1MiB/s\"", "max_log 16MiB/s -> 1MiB/s"),
        ("isolation = \"call\"", "", "isolation call -> default"),
        ("", "max_calls = 9", "max_calls none -> 9"),
        ("max_age = \"1h\"", "max_age = \"2h\"", "max_age 1h -> 2h"),
        ("queue = \"mail\"", "route = \"/\"", "trigger queue mail -> route /"),
        ("", "route = \"/v1\"", "trigger by its exports -> route /v1"),
        ("queue = \"a\"\nattempts = 3", "every = \"1m\"", "trigger queue a -> every 1m"),
        ("run = \"always\"", "run = \"never\"", "run always -> never"),
    ] {
        assert_eq!(of_type(old, new), (How::Instances, vec![line.to_owned()]), "{old} -> {new}");
    }
}

#[test]
fn one_key_that_takes_new_instances_is_enough() {
    let (how, what) =
        of_type("count = 1\nmemory = \"1MiB\"", "count = 2\nmemory = \"2MiB\"\nmax_body = \"1KiB\"");
    assert_eq!(how, How::Instances);
    assert_eq!(what, ["count 1 -> 2", "memory 1MiB -> 2MiB", "max_body none -> 1KiB"]);
}

#[test]
fn a_component_differs_by_its_path_or_by_its_bytes() {
    let (old, new) = ("[process.web]\ncomponent = \"a.wasm\"", "[process.web]\ncomponent = \"b.wasm\"");
    let what = |old: &str, new: &str, changed: bool| {
        let changes = Changes::between(&read(old), &read(new), &|process| changed && process == "web");
        changes.types.into_iter().map(|change| (change.how, change.what.concat())).collect::<Vec<_>>()
    };
    let path = "component /srv/shop/a.wasm -> /srv/shop/b.wasm".to_owned();
    assert_eq!(what(old, old, false), []);
    assert_eq!(what(old, old, true), [(How::Instances, "component /srv/shop/a.wasm has changed".to_owned())]);
    assert_eq!(what(old, new, false), [(How::Instances, path.clone())]);
    assert_eq!(what(old, new, true), [(How::Instances, path)]);
}

#[test]
fn types_are_added_and_removed_and_may_change_places() {
    let file = |names: &[&str]| {
        let table =
            |name: &&str| format!("[process.{name}]\ncomponent = \"{name}.wasm\"\nroute = \"/{name}\"\n");
        names.iter().map(table).collect::<String>()
    };
    let changes = between(&file(&["old", "web", "api"]), &file(&["api", "new", "web"]));
    let added = ["component /srv/shop/new.wasm", "count 1", "route /new"].map(str::to_owned).to_vec();
    assert_eq!(
        changes.types,
        [
            TypeChange { process: "new".to_owned(), how: How::Added, what: added },
            TypeChange { process: "old".to_owned(), how: How::Removed, what: vec![] },
        ]
    );
    assert!(between(&file(&["a", "b"]), &file(&["b", "a"])).is_empty());
}

const WEB: &str = "\n[process.web]\ncomponent = \"web.wasm\"\n";

fn of_file(old: &str, new: &str) -> Changes {
    between(&format!("{old}{WEB}"), &format!("{new}{WEB}"))
}

#[test]
fn what_a_running_host_stands_on_is_refused() {
    let refused = |old: &str, new: &str| {
        let changes = of_file(old, new);
        assert!(changes.types.is_empty() && changes.others.is_empty() && changes.http.is_empty());
        changes.refused
    };
    assert_eq!(
        refused("", "[store]\nurl = \"memory:\""),
        ["store.url sqlite:/srv/shop/.wasmhost/store.db -> memory:"]
    );
    assert_eq!(refused("", "max_instances = 9"), ["max_instances default -> 9"]);
    assert_eq!(
        refused("[store]\nurl = \"memory:\"", "state_dir = \"/s\"\n[store]\nurl = \"memory:\""),
        ["state_dir /srv/shop/.wasmhost -> /s"]
    );
}

#[test]
fn the_ingress_and_all_else_are_told_apart() {
    let changes = of_file(
        "[http.tls]\nlisten = \"[::]:443\"\ncert = \"a.pem\"\nkey = \"a.key\"",
        "[http]\nlisten = \"[::]:80\"\nmax_header = \"8KiB\"",
    );
    assert_eq!(
        changes.http,
        [
            "http.listen none -> [::]:80",
            "http.max_header 64KiB -> 8KiB",
            "http.tls.listen [::]:443 -> none",
            "http.tls.cert /srv/shop/a.pem -> none",
            "http.tls.key /srv/shop/a.key -> none",
        ]
    );
    assert!(changes.refused.is_empty() && changes.types.is_empty() && changes.others.is_empty());
    let changes = of_file(
        "[queues.mail]\nmax_depth = 5\n[queues.process]",
        "name = \"the shop\"\ngrace = \"1m\"\ndrain_delay = \"2s\"\nkeep_releases = 3\n[store]\nkeep_done = \"0s\"\n[queues.mail]",
    );
    assert_eq!(
        changes.others,
        [
            "name shop -> \"the shop\"",
            "grace 30s -> 1m",
            "drain_delay 0s -> 2s",
            "keep_releases 10 -> 3",
            "store.keep_done 1h -> 0s",
            "queues.mail.max_depth 5 -> none",
            "queues.process.max_bytes 4GiB -> none",
        ]
    );
    assert!(changes.refused.is_empty() && changes.types.is_empty() && changes.http.is_empty());
}

#[test]
fn no_secret_is_shown() {
    let file = r#"
name = "${A}"
[http]
listen = "unix:/run/${A}.sock"
[process.web]
component = "${A}.wasm"
args = ["--key=${A}"]
outbound = ["https://${A}"]
dirs = [{ host = "/${A}", guest = "/p" }]
env = { KEY = { from_env = "A" }, MIXED = "<${A}>" }
"#;
    let [old, new] = ["s3cret-one", "s3cret-two"].map(|value| read_with(file, &[("A", value)]));
    let changes = Changes::between(&old, &new, &|_| false);
    assert!(!format!("{changes:?}").contains("s3cret"), "{changes:?}");
    assert_eq!(changes.others, ["name (its value isn't shown)"]);
    assert_eq!(changes.http, ["http.listen (its value isn't shown)"]);
    assert_eq!(
        changes.types[0].what,
        [
            "component (its value isn't shown)",
            "args (its value isn't shown)",
            "outbound (its value isn't shown)",
            "env KEY",
            "env MIXED",
            "dirs /p (its value isn't shown)",
        ]
    );
    // Neither is one that takes the place of a plain text.
    let plain = read_with(&file.replace("https://${A}", "https://b.example"), &[("A", "s3cret-one")]);
    let changes = Changes::between(&old, &plain, &|_| false);
    assert_eq!(changes.types[0].what, ["outbound https://${A} -> https://b.example:443"]);
}

#[test]
fn a_line_is_one_line_and_bounded() {
    let args = format!("args = [\"a\\nb\\u001b[2J\", \"{}\"]", "x".repeat(5_000));
    let (_, what) = of_type("", &args);
    assert!(what[0].starts_with("args none -> \"a\\nb\\u{1b}[2J\", xxx"), "{what:?}");
    assert!(what[0].len() < 300 && what[0].ends_with("..."), "{what:?}");
    let (_, what) = of_type("", "env = { \"a\\nb\" = \"1\" }");
    assert_eq!(what, ["env a\\nb added"]);
}
