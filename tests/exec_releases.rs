//! `wasmhost exec` and releases: a one-off is a part of the release that is live, whatever became of the file.

use std::fs;

use crate::harness::{Ended, Formation, Host, eventually, guest_file};

/// `tool`, whose component is a file beside the formation, echoes this word.
fn tool(word: &str) -> Formation {
    Formation::new().versioned(
        "tool",
        "cmd-test",
        "1",
        &format!("args = [\"echo\", \"{word}\"]\nrun = \"never\""),
    )
}

/// Runs a formation, and waits until its component is kept.
fn run(formation: &Formation) -> Host {
    let host = Host::run(formation);
    let components = formation.path(".wasmhost/components");
    eventually("it is kept", || fs::read_dir(&components).ok()?.next().map(drop));
    host
}

fn exec(formation: &Formation) -> Ended {
    formation.cli(["exec", "tool"])
}

/// It was run as this release has it, and a line says what the file would change.
#[track_caller]
fn is_of_release(ended: Ended, number: u64, printed: &str, difference: &str) {
    let note = format!(
        "note: tool is run as v{number} has it, the live release; {difference}: `wasmhost deploy` makes that live, --from-file runs it\n"
    );
    assert_eq!(
        (ended.code, ended.stdout.as_str(), ended.stderr.as_str()),
        (0, printed, note.as_str()),
        "{ended:#?}"
    );
}

/// It was run, and nobody was told anything.
#[track_caller]
fn is_plain(ended: Ended, printed: &str) {
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (0, printed, ""), "{ended:#?}");
}

#[test]
fn the_live_release_is_run_with_its_host_and_without_it() {
    let formation = tool("old");
    is_plain(exec(&formation), "old\n");
    let host = run(&formation);
    is_plain(exec(&formation), "old\n");

    let formation = formation.replace("old", "new");
    let changed = "tool has changed in formation.toml";
    is_of_release(exec(&formation), 1, "old\n", changed);
    is_plain(formation.cli(["exec", "--from-file", "tool"]), "new\n");
    host.stop().done();
    is_of_release(exec(&formation), 1, "old\n", changed);
    let host = run(&formation);
    is_plain(exec(&formation), "new\n");
    host.kill();
    let formation = formation.replace("new", "newest");
    is_of_release(exec(&formation), 2, "new\n", changed);
    let host = run(&formation);
    host.cli(["rollback", "v1"]).done();
    is_of_release(exec(&formation), 4, "old\n", changed);
    // Arguments go before those of the release, as ever.
    assert_eq!(formation.cli(["exec", "tool", "echo", "asked"]).done(), "asked\n");
    host.stop().done();
}

#[test]
fn the_component_that_was_kept_is_run_whatever_became_of_its_file() {
    let formation = tool("kept");
    let host = run(&formation);
    let file = formation.path("tool.wasm");
    let changed =
        format!("{} has changed", fs::canonicalize(formation.folder()).unwrap().join("tool.wasm").display());
    fs::write(&file, "no component").unwrap();
    is_of_release(exec(&formation), 1, "kept\n", &changed);
    formation.cli(["exec", "--from-file", "tool"]).failed(4, "tool.wasm is not WebAssembly");
    fs::remove_file(&file).unwrap();
    host.stop().done();
    is_of_release(exec(&formation), 1, "kept\n", &changed);

    // Nor is a damaged one run.
    let kept = fs::read_dir(formation.path(".wasmhost/components")).unwrap().next().unwrap().unwrap().path();
    fs::write(&kept, "damaged").unwrap();
    let ended = exec(&formation).failed(4, "process.tool: the kept component ");
    for part in [
        kept.to_str().unwrap(),
        "isn't what it was",
        "this is v1, the live release; --from-file takes formation.toml",
    ] {
        assert!(ended.stderr.contains(part), "{part} in {ended:#?}");
    }
    // The formation's own file will do where it's the same.
    formation.build("tool", "cmd-test", "1");
    is_plain(exec(&formation), "kept\n");
}

#[test]
fn compiled_code_is_kept_and_run_as_well() {
    let core = guest_file("cmd-test-core");
    let formation = Formation::new();
    formation.cli(["compile", core.to_str().unwrap(), "-o", "tool.cwasm"]).done();
    let keys = "trust_cwasm = true\nargs = [\"echo\", \"kept\"]\nrun = \"never\"";
    let formation = formation.table(&format!("[process.tool]\ncomponent = \"tool.cwasm\"\n{keys}"));
    let host = run(&formation);
    is_plain(exec(&formation), "kept\n");
    fs::remove_file(formation.path("tool.cwasm")).unwrap();
    let changed =
        format!("{} has changed", fs::canonicalize(formation.folder()).unwrap().join("tool.cwasm").display());
    is_of_release(exec(&formation), 1, "kept\n", &changed);
    host.stop().done();
}

#[test]
fn a_file_that_is_broken_or_has_other_types_is_no_hindrance() {
    let formation = tool("live").with_file(".env", "NAME=first\n");
    let host = run(&formation);
    let text = formation.text();
    let formation = formation.with_text("argz = 1\n");
    is_of_release(exec(&formation), 1, "live\n", "formation.toml has errors");
    formation.cli(["exec", "--from-file", "tool"]).failed(2, "argz");
    let formation = formation.with_text(&text.replace("[process.tool]", "[process.other]"));
    is_of_release(exec(&formation), 1, "live\n", "formation.toml has no tool any more");
    let ended = formation
        .cli(["exec", "other"])
        .failed(2, "process.other: there is no such process type; this formation has tool");
    assert!(
        ended.stderr.contains("this is v1, the live release; --from-file takes formation.toml as it is"),
        "{ended:#?}"
    );
    assert_eq!(formation.cli(["exec", "--from-file", "other"]).done(), "live\n");
    host.stop().done();
}

#[test]
fn variables_are_those_of_the_release() {
    let keys = "args = [\"env\"]\nrun = \"never\"\nenv = { NAME = { from_env = \"NAME\" } }";
    let formation =
        Formation::new().versioned("tool", "cmd-test", "1", keys).with_file(".env", "NAME=first\n");
    let host = run(&formation);
    let formation = formation.with_file(".env", "NAME=second\n");
    let ended = exec(&formation);
    assert!(ended.stdout.contains("NAME=first\n"), "{ended:#?}");
    assert!(ended.stderr.contains("the .env beside formation.toml has changed"), "{ended:#?}");
    assert!(formation.cli(["exec", "--from-file", "tool"]).done().contains("NAME=second\n"));
    host.stop().done();
}

#[test]
fn a_host_with_its_store_in_memory_says_which_release_is_live() {
    let formation = tool("old").table("[store]\nurl = \"memory:\"");
    let host = run(&formation);
    let formation = formation.replace("old", "new");
    is_of_release(exec(&formation), 1, "old\n", "tool has changed in formation.toml");
    host.stop().done();
    // The release went with the memory.
    is_plain(exec(&formation), "new\n");
}

#[test]
fn a_host_is_found_whose_file_names_another_state_directory_by_now() {
    let formation = tool("old").top("state_dir = \"state\"");
    let host = Host::run(&formation);
    let formation = formation.replace("\"state\"", "\"elsewhere\"").replace("old", "new");
    is_of_release(exec(&formation), 1, "old\n", "tool has changed in formation.toml");
    let formation = formation.with_text("argz = 1\n");
    is_of_release(exec(&formation), 1, "old\n", "formation.toml has errors");
    host.stop().done();
    exec(&formation).failed(2, "argz");
    assert!(!formation.path("elsewhere").exists());
}

#[test]
fn the_release_of_another_formation_is_none_of_its_own() {
    let formation = tool("ours").top("state_dir = \"state\"");
    fs::write(formation.path("other.toml"), formation.text().replace("ours", "theirs")).unwrap();
    let host = Host::run(&formation);
    let theirs = || formation.cli(["-f", "other.toml", "exec", "tool"]);
    is_plain(theirs(), "theirs\n");
    host.stop().done();
    is_plain(theirs(), "theirs\n");
    is_plain(exec(&formation), "ours\n");
}

#[test]
fn a_store_that_others_may_write_to_is_not_believed() {
    use std::os::unix::fs::PermissionsExt;
    let formation = tool("old");
    run(&formation).stop().done();
    let formation = formation.replace("old", "new");
    fs::set_permissions(formation.path(".wasmhost/store.db"), fs::Permissions::from_mode(0o666)).unwrap();
    let ended = exec(&formation);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "new\n"), "{ended:#?}");
    assert!(
        ended.stderr.contains("note: it isn't known which release is live (")
            && ended.stderr.contains("may be written by other users"),
        "{ended:#?}"
    );
}

#[test]
fn nothing_is_written_where_no_host_runs() {
    let formation = tool("kept");
    run(&formation).stop().done();
    let names = || {
        let entries = fs::read_dir(formation.path(".wasmhost")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    is_plain(exec(&formation), "kept\n");
    assert_eq!(names(), before);
}
