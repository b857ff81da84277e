//! The state directory: private to its user, to one host, and to one formation.

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::process::{Uid, geteuid};
use rustix::thread::set_thread_res_uid;

use crate::harness::{Formation, Host, Process, eventually};

/// A user that is neither root nor whoever runs the tests.
const STRANGER: u32 = 54_321;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn the_directory_and_the_socket_are_private_whatever_the_umask_says() {
    for umask in ["000", "022", "277"] {
        let formation = Formation::web("").top("state_dir = \"new/state\"");
        let process = Process::start_after(formation.folder(), &format!("umask {umask}"), ["run"]);
        process.stderr.wait_for("all instances are up");
        for directory in ["new", "new/state"] {
            // The folders above it are made so that nobody else can rename what is in them.
            assert_eq!(mode(&formation.path(directory)) & 0o077, 0, "{directory} at {umask}");
        }
        assert_eq!(mode(&formation.path("new/state")), 0o700, "at {umask}");
        let state = formation.path("new/state");
        let components = eventually("the component is kept", || {
            fs::read_dir(state.join("components")).ok().filter(|_| state.join("store.db").exists())
        });
        let found = fs::read_dir(&state).unwrap().chain(components);
        for file in found.map(|entry| entry.unwrap().path()) {
            assert_eq!(mode(&file) & 0o077, 0, "{} at {umask}", file.display());
        }
    }
}

#[test]
fn a_directory_that_others_may_write_to_is_refused_by_name() {
    let formation = Formation::web("").directory(".wasmhost");
    for refused in [0o777, 0o770, 0o1777] {
        chmod(&formation.path(".wasmhost"), refused);
        let ended =
            formation.run_to_end().failed(3, &format!("may be written by other users (mode {refused:03o})"));
        assert!(ended.stderr.contains(formation.path(".wasmhost").to_str().unwrap()), "{ended:#?}");
        assert!(ended.stderr.contains("chmod 700"), "{ended:#?}");
    }
    chmod(&formation.path(".wasmhost"), 0o700);
    Host::run(&formation).stop().done();
}

#[test]
fn a_directory_of_another_user_is_refused_by_name() {
    let mut formation = Formation::web("").directory("state");
    let mut place = formation.path("state");
    if geteuid().is_root() {
        chmod(&place, 0o700);
        std::os::unix::fs::chown(&place, Some(STRANGER), Some(STRANGER)).unwrap();
        formation = formation.top("state_dir = \"state\"");
    } else {
        // Root's, and this user isn't root.
        place = "/usr".into();
        formation = formation.top("state_dir = \"/usr\"");
    }
    let owner = fs::metadata(&place).unwrap().uid();
    let text = format!("the state directory {} belongs to the user {owner}", place.display());
    formation.run_to_end().failed(3, &text);
    assert!(!place.join("lock").exists());
}

#[test]
fn a_planted_link_is_not_followed() {
    let formation = Formation::web("").directory("theirs");
    symlink("theirs", formation.path(".wasmhost")).unwrap();
    formation.run_to_end().failed(3, ".wasmhost is a symbolic link");
    assert_eq!(fs::read_dir(formation.path("theirs")).unwrap().count(), 0);
    fs::remove_file(formation.path(".wasmhost")).unwrap();

    let formation = formation.directory(".wasmhost");
    chmod(&formation.path(".wasmhost"), 0o700);
    fs::write(formation.path("precious"), "text").unwrap();
    symlink("../precious", formation.path(".wasmhost/lock")).unwrap();
    formation.run_to_end().failed(3, "lock is a symbolic link");
    assert_eq!(formation.read("precious"), "text");
    fs::remove_file(formation.path(".wasmhost/lock")).unwrap();

    // A link in the socket's place is replaced, and what it points to stays as it is.
    let mode_before = mode(&formation.path("precious"));
    symlink("../precious", formation.path(".wasmhost/admin.sock")).unwrap();
    let host = Host::run(&formation);
    host.cli(["ps"]).done();
    assert_eq!(
        (formation.read("precious").as_str(), mode(&formation.path("precious"))),
        ("text", mode_before)
    );
}

/// Needs root, who can be another user for a moment.
#[test]
fn nothing_is_sent_to_a_socket_of_another_user() {
    if !geteuid().is_root() {
        eprintln!("left out: only root can listen as another user");
        return;
    }
    let formation = Formation::web("").directory(".wasmhost");
    chmod(formation.folder(), 0o777);
    chmod(&formation.path(".wasmhost"), 0o777);
    let path = formation.path(".wasmhost/admin.sock");
    let listening = std::thread::spawn(move || {
        // This thread alone gets another user.
        let stranger = Uid::from_raw(STRANGER);
        set_thread_res_uid(stranger, stranger, stranger).unwrap();
        UnixListener::bind(path).unwrap()
    });
    let listener = listening.join().unwrap();
    let heard = std::thread::spawn(move || {
        let mut heard = Vec::new();
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_to_end(&mut heard).unwrap();
        }
        heard
    });
    let text = format!("is of the user {STRANGER}, expected our own (0) or root");
    formation.cli(["enqueue", "default", "a secret"]).failed(5, &text);
    formation.cli(["ps"]).failed(5, &text);
    formation.cli(["stop"]).failed(5, &text);
    assert_eq!(heard.join().unwrap(), b"");
}

#[test]
fn two_formations_in_one_folder_have_nothing_in_common() {
    let formation = Formation::web("count = 2");
    fs::write(formation.path("many.toml"), formation.text()).unwrap();
    let many = Process::start(formation.folder(), ["run", "many.toml"]);
    many.stderr.wait_for("all instances are up");
    formation.cli(["-f", "many.toml", "scale", "web=3"]).done();

    let no_host = "no host runs formation.toml: start one with `wasmhost run formation.toml`";
    formation.cli(["stop"]).failed(5, no_host);
    formation.cli(["ps"]).failed(5, no_host);
    let host = Host::run(&formation);
    assert_eq!(host.ps().number("web", "desired"), 2, "the other's count is its own");
    host.cli(["stop"]).done();
    host.wait().done();
    formation.cli(["-f", "many.toml", "ps"]).done();
    assert!(
        formation.path(".wasmhost-many/store.db").exists() && formation.path(".wasmhost/store.db").exists()
    );
    formation.cli(["-f", "many.toml", "stop"]).done();
}

#[test]
fn formations_that_name_one_state_directory_are_told_apart() {
    let formation = Formation::web("count = 2").top("state_dir = \"state\"");
    fs::write(formation.path("other.toml"), formation.text()).unwrap();
    symlink("formation.toml", formation.path("same.toml")).unwrap();
    let host = Host::run(&formation);
    host.cli(["scale", "web=3"]).done();

    let ours = formation.file().display().to_string();
    for arguments in [["-f", "other.toml", "stop"], ["-f", "other.toml", "ps"], ["-f", "other.toml", "scale"]]
    {
        let ended = formation.cli(arguments).failed(5, &format!("runs {ours}, not other.toml"));
        assert!(ended.stderr.contains("`state_dir`"), "{ended:#?}");
    }
    let ended = formation.cli(["run", "other.toml"]).failed(3, &format!("a wasmhost runs {ours} with it"));
    assert!(ended.stderr.contains("other.toml"), "{ended:#?}");
    // Another name for the same file is the same formation.
    formation.cli(["-f", "same.toml", "ps"]).done();
    assert_eq!(host.ps().number("web", "desired"), 3);
    host.stop().done();

    // The directory stays that of the formation whose jobs, counts and releases are in it.
    let refused = formation.cli(["run", "other.toml"]);
    let refused = refused.failed(3, &format!("holds the jobs and releases of {ours}, and this is")).stderr;
    assert!(refused.contains("other.toml: give this formation another `state_dir`"), "{refused}");
    let host = Host::run(&formation);
    assert_eq!((host.ps().number("web", "desired"), host.live()), (3, 1));
    host.stop().done();
    for file in ["formation.toml", "same.toml"] {
        fs::remove_file(formation.path(file)).unwrap();
    }
    let other = Process::start(formation.folder(), ["run", "other.toml"]);
    other.stderr.wait_for("all instances are up");
    assert_eq!(formation.cli(["-f", "other.toml", "scale"]).done(), "wasmhost scale web=3\n");
}

#[test]
fn a_folder_that_was_copied_has_a_state_of_its_own() {
    let formation = Formation::web("count = 2");
    let host = Host::run(&formation);
    host.cli(["scale", "web=3"]).done();
    host.stop().done();
    let copy = formation.path("copy");
    fs::create_dir_all(copy.join(".wasmhost")).unwrap();
    chmod(&copy.join(".wasmhost"), 0o700);
    fs::copy(formation.file(), copy.join("formation.toml")).unwrap();
    for file in
        fs::read_dir(formation.path(".wasmhost")).unwrap().flatten().filter(|entry| entry.path().is_file())
    {
        fs::copy(file.path(), copy.join(".wasmhost").join(file.file_name())).unwrap();
    }
    let other = Process::start(&copy, ["run"]);
    other.stderr.wait_for("all instances are up");
    assert_eq!(Process::start(&copy, ["scale"]).wait().done(), "wasmhost scale web=3\n");
    Host::run(&formation).stop().done();
}

#[test]
fn a_formation_that_was_renamed_keeps_its_counts() {
    let formation = Formation::web("count = 2").top("state_dir = \"state\"");
    let host = Host::run(&formation);
    host.cli(["scale", "web=3"]).done();
    host.stop().done();
    fs::rename(formation.file(), formation.path("renamed.toml")).unwrap();
    let renamed = Process::start(formation.folder(), ["run", "renamed.toml"]);
    renamed.stderr.wait_for("all instances are up");
    assert_eq!(formation.cli(["-f", "renamed.toml", "scale"]).done(), "wasmhost scale web=3\n");
}
