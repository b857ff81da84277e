//! Compiled components and core modules: what is kept of them from start to start, and files of them.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::harness::{Ended, Formation, Host, Process, guest_file};

/// The log's words for each component or core module that is compiled, and for each that isn't.
const COMPILED: &str = "compiled a ";
const MAPPED: &str = "mapped ";

/// A formation whose cache is its own, in the directory `cache` beside it.
fn with_own_cache(formation: Formation) -> Formation {
    let cache = formation.path("cache");
    formation.variable("WASMHOST_CACHE_DIR", cache)
}

/// The files in the cache, and the inode of each: a file that was written anew has another one.
fn entries(formation: &Formation) -> BTreeMap<PathBuf, u64> {
    let files = fs::read_dir(formation.path("cache")).unwrap().map(|file| file.unwrap());
    files.map(|file| (file.path(), file.metadata().unwrap().ino())).collect()
}

/// The one file in the cache.
#[track_caller]
fn entry(formation: &Formation) -> (PathBuf, u64) {
    let entries = entries(formation);
    assert_eq!(entries.len(), 1, "{entries:#?}");
    entries.into_iter().next().unwrap()
}

fn make_older(file: &Path, by: Duration) {
    let file = fs::File::options().append(true).open(file).unwrap();
    file.set_modified(SystemTime::now() - by).unwrap();
}

/// Runs it, and sees that it serves. Returns the host's standard error.
#[track_caller]
fn serves(formation: &Formation) -> String {
    let host = Host::run(formation);
    assert_eq!(host.get("/ok").ok(), "ok\n");
    let ended = host.stop();
    assert_eq!(ended.code, 0, "{ended:#?}");
    ended.stderr
}

#[track_caller]
fn warns(stderr: &str, text: &str) {
    let warnings: Vec<_> = stderr.lines().filter(|line| line.contains("\"WARN\"")).collect();
    assert!(matches!(warnings.as_slice(), [one] if one.contains(text)), "one with {text:?} in {stderr}");
}

#[track_caller]
fn warns_of_nothing(stderr: &str) {
    assert!(!stderr.contains("\"WARN\""), "{stderr}");
}

#[test]
fn a_second_start_compiles_nothing() {
    let formation = with_own_cache(Formation::web("")).variable("WASMHOST_LOG", "debug");
    let first = serves(&formation);
    assert!(first.contains(COMPILED) && !first.contains(MAPPED), "{first}");
    let (file, inode) = entry(&formation);
    make_older(&file, Duration::from_secs(3600));
    let second = serves(&formation);
    assert!(!second.contains(COMPILED) && second.contains(MAPPED), "{second}");
    assert_eq!(entry(&formation), (file.clone(), inode));
    let age = SystemTime::now().duration_since(fs::metadata(file).unwrap().modified().unwrap()).unwrap();
    assert!(age < Duration::from_secs(1800), "what is used counts as new: {age:?}");
}

#[test]
fn only_its_owner_can_read_the_cache() {
    let formation = with_own_cache(Formation::web(""));
    warns_of_nothing(&serves(&formation));
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&formation.path("cache")), 0o700);
    assert_eq!(mode(&entry(&formation).0), 0o600);
}

#[test]
fn types_with_one_component_compile_it_once() {
    let formation = || {
        let formation = Formation::web("").process("api", "web-test", "route = \"/api\"");
        with_own_cache(formation).variable("WASMHOST_LOG", "debug")
    };
    let kept = formation();
    let stderr = serves(&kept);
    assert_eq!(stderr.matches(COMPILED).count(), 1, "{stderr}");
    entry(&kept);
    let stderr = serves(&formation().variable("WASMHOST_CACHE", "off"));
    assert_eq!(stderr.matches(COMPILED).count(), 1, "{stderr}");
}

#[test]
fn a_damaged_entry_is_replaced() {
    let formation = with_own_cache(Formation::web(""));
    serves(&formation);
    let (file, _) = entry(&formation);
    let whole = fs::read(&file).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    let damages: [(&[u8], &str); 4] = [
        (&changed, "checksum"),
        (&whole[..whole.len() / 2], "cut short"),
        (&whole[..whole.len() - 1], "cut short"),
        (b"", "cut short"),
    ];
    for (damaged, why) in damages {
        // A new file: the old one may not be changed, and isn't by anybody.
        fs::remove_file(&file).unwrap();
        fs::write(&file, damaged).unwrap();
        warns(&serves(&formation), why);
        assert_eq!(fs::read(&file).unwrap().len(), whole.len());
        warns_of_nothing(&serves(&formation));
    }
}

#[test]
fn an_entry_that_others_could_have_written_is_replaced() {
    let formation = with_own_cache(Formation::web(""));
    serves(&formation);
    let (file, inode) = entry(&formation);
    fs::set_permissions(&file, Permissions::from_mode(0o622)).unwrap();
    warns(&serves(&formation), "may be written by other users");
    assert_ne!(entry(&formation), (file.clone(), inode));

    let elsewhere = formation.path("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    symlink(&elsewhere, &file).unwrap();
    warns(&serves(&formation), "is a symbolic link");
    assert!(fs::symlink_metadata(&file).unwrap().is_file());
}

#[test]
fn an_entry_under_another_name_is_not_taken_for_it() {
    let formation = with_own_cache(Formation::web(""));
    let other = with_own_cache(Formation::new().process("web", "tick-test", "schedule = \"@yearly\""));
    serves(&formation);
    assert_eq!(Host::run(&other).stop().code, 0);
    let (file, _) = entry(&formation);
    fs::rename(entry(&other).0, &file).unwrap();
    warns(&serves(&formation), "is another component's");
}

#[test]
fn a_directory_that_others_can_write_is_not_used() {
    let formation = with_own_cache(Formation::web("")).directory("cache");
    fs::set_permissions(formation.path("cache"), Permissions::from_mode(0o777)).unwrap();
    warns(&serves(&formation), "may be written by other users (mode 777), expected 700");
    assert!(entries(&formation).is_empty());
}

#[test]
fn a_directory_that_cannot_be_used_stops_no_start() {
    let formation = with_own_cache(Formation::web("")).directory("elsewhere");
    symlink(formation.path("elsewhere"), formation.path("cache")).unwrap();
    warns(&serves(&formation), "is a symbolic link");
    assert!(entries(&formation).is_empty());

    fs::remove_file(formation.path("cache")).unwrap();
    fs::write(formation.path("cache"), "a file").unwrap();
    warns(&serves(&formation), "can't be made");
}

#[test]
fn the_cache_can_be_turned_off() {
    let formation = with_own_cache(Formation::web("")).variable("WASMHOST_CACHE", "off");
    warns_of_nothing(&serves(&formation));
    assert!(!formation.path("cache").exists());
}

#[test]
fn a_setting_that_is_wrong_is_named() {
    let formation = Formation::web("").variable("WASMHOST_CACHE", "yes");
    formation.run_to_end().failed(2, "WASMHOST_CACHE: found \"yes\", expected \"on\" or \"off\"");
    let formation = Formation::web("").variable("WASMHOST_CACHE_SIZE", "100");
    formation.run_to_end().failed(2, "WASMHOST_CACHE_SIZE: found 100");
}

#[test]
fn what_was_not_used_for_longest_goes_first() {
    let formation = with_own_cache(Formation::web(""));
    serves(&formation);
    let (web, _) = entry(&formation);
    let formation = formation.process("job", "job-test", "queue = \"q\"");
    serves(&formation);
    let job = entries(&formation).into_keys().find(|file| *file != web).unwrap();
    make_older(&web, Duration::from_secs(60));
    make_older(&job, Duration::from_secs(120));

    // Two have room, and the third is smaller than these.
    let bytes = |file: &Path| fs::metadata(file).unwrap().len();
    let room = bytes(&web) + bytes(&job);
    let tick = guest_file("tick-test");
    let formation = formation
        .with_text(&format!("[process.tick]\ncomponent = {tick:?}\nschedule = \"@yearly\"\n"))
        .variable("WASMHOST_CACHE_SIZE", format!("{room}B"));
    assert_eq!(Host::run(&formation).stop().code, 0);
    assert_eq!((web.exists(), job.exists(), entries(&formation).len()), (true, false, 2));
}

#[test]
fn what_is_too_large_is_not_kept() {
    let formation = with_own_cache(Formation::web("")).variable("WASMHOST_CACHE_SIZE", "10KiB");
    warns(&serves(&formation), "WASMHOST_CACHE_SIZE");
    assert!(entries(&formation).is_empty());
}

#[test]
fn what_killed_processes_left_is_removed() {
    let formation = with_own_cache(Formation::web("")).directory("cache");
    fs::set_permissions(formation.path("cache"), Permissions::from_mode(0o700)).unwrap();
    for name in ["cache/abc.tmp", "cache/def.lock", "cache/ghi.tmp"] {
        fs::write(formation.path(name), "left").unwrap();
    }
    make_older(&formation.path("cache/abc.tmp"), Duration::from_secs(7200));
    make_older(&formation.path("cache/def.lock"), Duration::from_secs(7200));
    warns_of_nothing(&serves(&formation));
    assert!(!formation.path("cache/abc.tmp").exists() && !formation.path("cache/def.lock").exists());
    assert!(formation.path("cache/ghi.tmp").exists(), "it may be in use");
}

#[test]
fn hosts_that_start_together_compile_once() {
    let shared = tempfile::tempdir().unwrap();
    let cache = shared.path().join("cache");
    let formations: Vec<Formation> = (0..3)
        .map(|_| Formation::web("").variable("WASMHOST_CACHE_DIR", &cache).variable("WASMHOST_LOG", "debug"))
        .collect();
    let started: Vec<_> = formations.iter().map(|formation| formation.start(["run"])).collect();
    for process in &started {
        process.stderr.wait_for("all instances are up");
    }
    let compiled: usize = started.iter().map(|process| process.stderr.count(COMPILED)).sum();
    let files: Vec<_> = fs::read_dir(&cache).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!((compiled, files.len()), (1, 1), "{files:?}");
}

// --- core modules

/// `wasmhost run` of a core module that ends with this code. Returns its standard error.
#[track_caller]
fn exits(formation: &Formation, code: i32) -> String {
    let module = guest_file("cmd-test-core");
    let ended = formation.cli(["run", module.to_str().unwrap(), "exit", &code.to_string()]);
    assert_eq!(ended.code, code, "{ended:#?}");
    ended.stderr
}

#[test]
fn a_second_run_of_a_core_module_compiles_nothing() {
    let formation = with_own_cache(Formation::new()).variable("WASMHOST_LOG", "debug");
    let first = exits(&formation, 7);
    assert!(first.contains("compiled a core module") && !first.contains(MAPPED), "{first}");
    let kept = entry(&formation);
    let second = exits(&formation, 200);
    assert!(!second.contains(COMPILED) && second.contains(MAPPED), "{second}");
    // A formation has other engines, with a pool, and the same code.
    let module = formation.process("clock", "cmd-test-core", "schedule = \"@yearly\"");
    let ended = Host::run(&module).stop();
    assert!(!ended.stderr.contains(COMPILED) && ended.stderr.contains(MAPPED), "{ended:#?}");
    assert_eq!(entry(&module), kept);
}

#[test]
fn a_damaged_entry_of_a_core_module_is_replaced() {
    let formation = with_own_cache(Formation::new()).variable("WASMHOST_LOG", "warn");
    assert_eq!(exits(&formation, 7), "");
    let (file, _) = entry(&formation);
    let mut changed = fs::read(&file).unwrap();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::remove_file(&file).unwrap();
    fs::write(&file, &changed).unwrap();
    let stderr = exits(&formation, 7);
    assert!(
        stderr.contains("is damaged (its checksum is wrong): compiling anew, and replacing it"),
        "{stderr}"
    );
    assert_eq!(exits(&formation, 7), "");
}

#[test]
fn programs_that_start_together_compile_a_core_module_once() {
    let formation = with_own_cache(Formation::new()).variable("WASMHOST_LOG", "debug");
    let module = guest_file("cmd-test-core");
    let started = [(); 3].map(|()| formation.start(["run", module.to_str().unwrap(), "exit", "3"]));
    let ended = started.map(Process::wait);
    assert!(ended.iter().all(|ended| ended.code == 3), "{ended:#?}");
    let compiled = ended.iter().filter(|ended| ended.stderr.contains(COMPILED)).count();
    assert_eq!((compiled, entries(&formation).len()), (1, 1), "{ended:#?}");
}

#[test]
fn a_compiled_core_module_serves_a_formation_too() {
    let formation = with_own_cache(Formation::new());
    fs::copy(guest_file("cmd-test-core"), formation.path("clock.wasm")).unwrap();
    formation.cli(["compile", "clock.wasm"]).done();
    let table = "[process.clock]\ncomponent = \"clock.cwasm\"\ntrust_cwasm = true\nschedule = \"@yearly\"";
    let formation = formation.table(table);
    let host = Host::run(&formation);
    host.cli(["tick", "clock"]).done();
    assert!(host.stdout().wait_for("done").contains("clock.1"));
    host.stop().done();
    assert!(!formation.path("cache").exists() || entries(&formation).is_empty(), "nothing was compiled");
}

// --- .cwasm

/// A formation whose type `web` is a compiled file beside it.
fn compiled(keys: &str) -> Formation {
    let formation = Formation::new();
    fs::copy(guest_file("web-test"), formation.path("web.wasm")).unwrap();
    assert_eq!(formation.cli(["compile", "web.wasm"]).done(), "web.cwasm\n");
    formation.table(&format!("[process.web]\ncomponent = \"web.cwasm\"\n{keys}"))
}

#[track_caller]
fn refused(formation: &Formation, text: &str) -> Ended {
    formation.cli(["check"]).failed(4, text);
    formation.run_to_end().failed(4, text)
}

#[test]
fn a_compiled_file_that_is_trusted_is_run_as_it_is() {
    let formation = with_own_cache(compiled("trust_cwasm = true"));
    let text = formation.cli(["check"]).done();
    assert!(text.contains("trust_cwasm = true"), "{text}");
    warns_of_nothing(&serves(&formation));
    assert!(entries(&formation).is_empty(), "nothing was compiled");
}

#[test]
fn a_running_host_survives_that_its_compiled_file_is_overwritten() {
    let formation = compiled("trust_cwasm = true");
    let host = Host::run(&formation);
    fs::write(formation.path("web.cwasm"), "").unwrap();
    assert_eq!(host.get("/ok").ok(), "ok\n");
    assert_eq!(host.stop().code, 0);
}

#[test]
fn a_compiled_file_that_is_not_trusted_is_refused() {
    let text = "web.cwasm is compiled code, which runs outside of the sandbox: whoever made it can do all that this host can. If that was you, with `wasmhost compile`, set `trust_cwasm = true` (`--trust-cwasm` beside `run app.cwasm`); if not, name the .wasm file";
    refused(&compiled(""), text);
    refused(&compiled("trust_cwasm = false"), text);
}

#[test]
fn a_compiled_file_is_recognised_by_what_is_in_it() {
    let formation = compiled("").replace("web.cwasm", "disguised.wasm");
    fs::copy(formation.path("web.cwasm"), formation.path("disguised.wasm")).unwrap();
    refused(&formation, "disguised.wasm is compiled code");
}

#[test]
fn a_compiled_file_of_another_version_is_refused() {
    let formation = compiled("trust_cwasm = true");
    let file = formation.path("web.cwasm");
    remake(&file, |about| {
        about["wasmhost"] = "0.0.1".into();
        about["wasmtime"] = "1.2.3".into();
    });
    let ended = refused(&formation, "was compiled by wasmhost 0.0.1 (wasmtime 1.2.3, ");
    assert!(ended.stderr.contains("make it again with this version's `wasmhost compile`"), "{ended:#?}");
}

#[test]
fn a_damaged_compiled_file_is_refused() {
    let formation = compiled("trust_cwasm = true");
    let file = formation.path("web.cwasm");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    refused(&formation, "was cut short");
    let mut changed = whole;
    changed[1000] ^= 1;
    fs::write(&file, &changed).unwrap();
    refused(&formation, "is damaged (its checksum is wrong)");
}

#[test]
fn compile_writes_where_it_is_told() {
    let formation = Formation::new().directory("out");
    let component = guest_file("web-test");
    let component = component.to_str().unwrap();
    assert_eq!(formation.cli(["compile", component, "-o", "out/app.bin"]).done(), "out/app.bin\n");
    assert_eq!(fs::read_dir(formation.path("out")).unwrap().count(), 1, "nothing is left beside it");
    formation.cli(["compile", component, "-o", "missing/app"]).failed(1, "can't write missing/app");
}

#[test]
fn compile_refuses_what_is_no_component() {
    let formation = compiled("");
    formation.cli(["compile", "missing.wasm"]).failed(4, "the component missing.wasm doesn't exist");
    formation.cli(["compile", "formation.toml"]).failed(4, "formation.toml is not WebAssembly");
    formation.cli(["compile", "web.cwasm"]).failed(2, "web.cwasm would be replaced");
    formation.cli(["compile", "web.cwasm", "-o", "again"]).failed(4, "web.cwasm is not WebAssembly");
}

/// Changes what a compiled file says of itself, its checksum with it: see crates/engine/src/compiled/cwasm.rs.
fn remake(file: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let bytes = fs::read(file).unwrap();
    let (body, end) = bytes.split_at(bytes.len() - 20);
    let about_len = u32::from_le_bytes(end[..4].try_into().unwrap()) as usize;
    let (code, about) = body.split_at(body.len() - about_len);
    let mut about = serde_json::from_slice(about).unwrap();
    change(&mut about);
    let about = serde_json::to_vec(&about).unwrap();
    let mut bytes = code.to_vec();
    bytes.extend_from_slice(&about);
    bytes.extend_from_slice(&u32::try_from(about.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(&end[4..8]);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend_from_slice(&end[12..]);
    fs::write(file, bytes).unwrap();
}
