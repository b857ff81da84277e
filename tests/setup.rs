//! The verbs that write files: `import`, `init` and `export`.

use serde_json::Value;
use std::fs;

use crate::harness::{Formation, Host};

fn procfile() -> Formation {
    Formation::new()
        .with_guest("web-test", "web.wasm")
        .with_guest("job-test", "worker.wasm")
        .with_guest("cmd-test", "tools.wasm")
        .with_file(
            "Procfile",
            "# serves\nweb: web.wasm --flag 'a b' ${NAME:-x}\nworker: LEVEL=\"high $KEY\" worker.wasm\nonce: tools.wasm echo\nrelease: tools.wasm echo $KEY\n",
        )
        .with_file(".env", "KEY=s3cret\nPORT=0\n")
}

/// The formation as `check` understands a file.
#[track_caller]
fn understood(formation: &Formation, file: &str) -> Value {
    serde_json::from_str(&formation.cli(["check", "--json", file]).done()).unwrap()
}

#[test]
fn what_is_imported_is_understood_as_the_procfile_is() {
    let formation = procfile();
    let before = understood(&formation, "Procfile");
    let said = formation.cli(["import"]).done();
    assert!(said.starts_with("wrote formation.toml with 4 process types"), "{said}");
    let text = formation.read("formation.toml");
    assert!(text.contains("# serves\n[process.web]\n") && !text.contains("s3cret"), "{text}");
    let after = understood(&formation, "formation.toml");
    assert_eq!(before, after, "{text}");
    assert_eq!(after["process"]["web"]["enqueue"][0], "default");

    formation.cli(["import"]).failed(2, "formation.toml is there already");
    assert_eq!(formation.read("formation.toml"), text);
    formation.cli(["import", "--force", "-m", "web=3,worker=2"]).done();
    assert_eq!(understood(&formation, "formation.toml")["process"]["web"]["count"], 3);
    let printed = formation.cli(["import", "-o", "-", "--formation", "all=2"]).done();
    assert_eq!(printed.matches("count = 2").count(), 4, "{printed}");
    formation.cli(["import", "-m", "wbe=3"]).failed(2, "no such type; there are web, worker, once, release");
    formation
        .cli(["import", "-o", "/tmp/formation.toml"])
        .failed(2, "expected a file in the folder of Procfile");
    formation.cli(["import", "formation.toml"]).failed(2, "expected a Procfile");
    let host = Host::run(&formation);
    host.get("/ok").ok();
}

#[test]
fn what_is_written_never_takes_the_place_of_what_it_is_made_of() {
    let formation = procfile();
    let text = formation.read("Procfile");
    for output in ["Procfile", "./Procfile", ".env", "web.wasm"] {
        formation
            .cli(["import", "-o", output, "--force"])
            .failed(2, "which this is made of, and stays as it is: name another file");
    }
    formation.cli(["import", "--force"]).done();
    let imported = formation.read("formation.toml");
    for output in ["formation.toml", ".env", "worker.wasm"] {
        formation.cli(["export", "procfile", "-o", output, "--force"]).failed(2, "which this is made of");
    }
    let shop = formation.with_file("shop.service", &imported);
    shop.cli(["-f", "shop.service", "export", "systemd", ".", "--name", "shop", "--force"])
        .failed(2, "which this is made of");
    assert_eq!((shop.read("Procfile"), shop.read("formation.toml")), (text, imported.clone()));
    assert_eq!((shop.read("shop.service"), shop.read(".env").as_str()), (imported, "KEY=s3cret\nPORT=0\n"));
    shop.cli(["check", "Procfile"]).done();
}

#[test]
fn programs_are_told_what_was_written() {
    let json = |ended: crate::harness::Ended| -> Value { serde_json::from_str(&ended.done()).unwrap() };
    let formation = procfile();
    let printed = json(formation.cli(["import", "-o", "-", "--json"]));
    assert!(
        printed["file"].is_null() && printed["text"].as_str().unwrap().contains("[process.web]"),
        "{printed}"
    );
    let written = json(formation.cli(["import", "--force", "--json"]));
    assert_eq!(
        written,
        serde_json::json!({ "file": "formation.toml", "types": ["web", "worker", "once", "release"] })
    );
    let exported = json(formation.cli(["export", "procfile", "--json"]));
    let left_out = exported["left_out"].as_array().unwrap();
    assert!(exported["text"].as_str().unwrap().starts_with("web: web.wasm"), "{exported}");
    assert!(left_out.iter().any(|line| line.as_str().unwrap().contains("env.KEY")), "{exported}");
    let units = json(formation.cli(["export", "systemd", "units", "--name", "shop", "--json"]));
    assert_eq!(units["files"][0], "units/shop.service", "{units}");
    assert!(units["note"].as_str().unwrap().contains("systemctl enable --now shop.service"), "{units}");
    let found = json(formation.with_guest("empty", "empty.wasm").cli(["-f", "other.toml", "init", "--json"]));
    assert_eq!((&found["file"], &found["types"][0]), (&"other.toml".into(), &"tools".into()), "{found}");
    assert!(found["left_out"][0].as_str().unwrap().contains("empty.wasm exports nothing"), "{found}");
}

#[test]
fn an_import_fills_in_what_a_procfile_cannot_say() {
    let formation = Formation::new()
        .with_guest("web-test", "web.wasm")
        .with_guest("tick-test", "clock.wasm")
        .with_file("Procfile", "api: web.wasm\nweb: web.wasm\nclock: clock.wasm\n");
    formation.cli(["import"]).done();
    let text = formation.read("formation.toml");
    for line in [
        "route = \"/api\"    # a guess",
        "route = \"/\"\n",
        "schedule = \"0 * * * *\"    # a guess: each hour",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    formation.cli(["check"]).done();
    let formation = formation.with_file("Procfile", "web: web.wasm\nlater: not-built.wasm\n");
    formation.cli(["import", "--force"]).done();
    assert!(formation.read("formation.toml").contains("not-built.wasm can't be read yet"));
}

#[test]
fn a_folder_of_components_gets_a_formation_that_runs() {
    let formation = Formation::new()
        .with_guest("web-test", "target/wasm32-wasip2/release/web_app.wasm")
        .with_guest("web-test", "target/wasm32-wasip2/debug/web_app.wasm")
        .with_guest("web-test", "admin.wasm")
        .with_guest("job-test", "worker.wasm")
        .with_guest("tick-test", "clock.wasm")
        .with_guest("cmd-test", "tools.wasm")
        .with_guest("empty", "empty.wasm")
        .with_guest("imports-unknown", "odd.wasm")
        .with_file("notes.wasm", "no component");
    let said = formation.cli(["init"]).done();
    assert!(said.contains("wrote formation.toml with 5 process types; next: `wasmhost run`"), "{said}");
    let text = formation.read("formation.toml");
    for line in [
        "[process.admin]\ncomponent = \"admin.wasm\"\nroute = \"/\"\nenqueue = [\"default\"]\n",
        "[process.clock]\ncomponent = \"clock.wasm\"\nschedule = \"0 * * * *\"",
        "[process.tools]\ncomponent = \"tools.wasm\"\nrun = \"always\"",
        "[process.web-app]\ncomponent = \"target/wasm32-wasip2/release/web_app.wasm\"\nroute = \"/web-app\"",
        "[process.worker]\ncomponent = \"worker.wasm\"\nqueue = \"default\"",
        "# Left out: empty.wasm exports nothing",
        "# Left out: notes.wasm is not WebAssembly",
        "# Left out: odd.wasm imports ",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    formation.cli(["check"]).done();
    formation.cli(["init"]).failed(2, "formation.toml is there already, and stays as it is");
    assert_eq!(formation.read("formation.toml"), text);
    formation.cli(["-f", "other.toml", "init"]).done();
    formation.cli(["-f", "other.toml", "check"]).done();
}

#[test]
fn a_folder_without_components_gets_nothing() {
    let formation = Formation::new().with_guest("empty", "empty.wasm");
    formation.cli(["init"]).failed(4, "found no component that can be called");
    formation.cli(["init", "nowhere"]).failed(1, "can't look into nowhere");
    assert!(!formation.file().exists());
    Formation::new().cli(["init"]).failed(4, "found no .wasm file");
}

#[test]
fn a_procfile_comes_back_from_what_was_imported_of_it() {
    let formation = procfile();
    let before = understood(&formation, "Procfile");
    formation.cli(["import"]).done();
    let exported = formation.cli(["export", "procfile"]);
    assert_eq!(
        exported.stdout,
        "web: web.wasm --flag 'a b' x\nworker: LEVEL='high '\"${KEY}\" worker.wasm\nonce: tools.wasm echo\nrelease: tools.wasm echo \"${KEY}\"\n"
    );
    assert!(
        exported.stderr.contains("process.web: the value of env.KEY, which belongs in .env"),
        "{exported:?}"
    );
    fs::write(formation.path("Procfile"), &exported.stdout).unwrap();
    assert_eq!(understood(&formation, "Procfile"), before);
    formation.cli(["export", "procfile", "-o", "Procfile"]).failed(2, "Procfile is there already");
    formation.cli(["export", "procfile", "-o", "Procfile", "--force"]).done();
}
