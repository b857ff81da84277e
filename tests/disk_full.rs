//! A full disk: what serves goes on, a deploy leaves no trace, and a host that was killed starts again. The disk is a
//! small tmpfs in a mount namespace of the test's own, and only the state directory is on it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, geteuid};

use crate::harness::http::{Answer, Connection, Request};
use crate::harness::{Ended, Formation, Process, eventually, versioned_web};

/// A formation whose state directory is on a small disk.
struct OnDisk {
    formation: Formation,
    /// Holds the namespace.
    holder: Child,
}

impl OnDisk {
    /// None where nothing can be mounted, not even in a namespace.
    fn mount() -> Option<OnDisk> {
        OnDisk::mount_for(versioned_web("one", "").top("state_dir = \"disk/state\""))
    }

    /// The same for a formation that has its directory `disk` on it.
    fn mount_for(formation: Formation) -> Option<OnDisk> {
        let formation = formation.directory("disk");
        let script = "mount -t tmpfs -o size=24m,mode=755 tmpfs \"$1\" && echo mounted && exec sleep 100000";
        let mut unshare = Command::new("unshare");
        if !geteuid().is_root() {
            unshare.args(["-U", "-r"]);
        }
        unshare.args(["-m", "sh", "-ec", script, "sh"]).arg(formation.path("disk"));
        unshare.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut holder = unshare.spawn().ok()?;
        let (mut line, stdout) = (String::new(), holder.stdout.take().unwrap());
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let on_disk = OnDisk { formation, holder };
        if line != "mounted\n" {
            println!("LEFT OUT: nothing can be mounted here in a namespace, so that no disk was full");
            return None;
        }
        Some(on_disk)
    }

    /// Starts the binary where the disk is.
    fn start<const N: usize>(&self, arguments: [&str; N]) -> Process {
        let user = if geteuid().is_root() { "" } else { "-U --preserve-credentials" };
        let folder = self.formation.folder().to_str().unwrap();
        let enter = format!("exec nsenter -t {} -m {user} --wd={folder} -- \"$0\" \"$@\"", self.holder.id());
        Process::start_after(self.formation.folder(), &enter, arguments)
    }

    fn cli<const N: usize>(&self, arguments: [&str; N]) -> Ended {
        self.start(arguments).wait()
    }

    /// Runs a host until all its instances are up.
    fn run(&self) -> Process {
        let host = self.start(["run"]);
        host.stderr.wait_for("all instances are up");
        host
    }

    /// A path on the disk, as it is seen from here.
    fn path(&self, name: &str) -> PathBuf {
        let disk = self.formation.path("disk");
        PathBuf::from(format!("/proc/{}/root{}/{name}", self.holder.id(), disk.display()))
    }

    /// Leaves no room.
    fn fill(&self) {
        let mut file = File::create(self.path("filling")).unwrap();
        let err = loop {
            if let Err(err) = file.write_all(&[0; 4_096]) {
                break err;
            }
        };
        assert_eq!(err.kind(), ErrorKind::StorageFull, "{err}");
    }

    fn make_room(&self) {
        fs::remove_file(self.path("filling")).unwrap();
    }

    /// The components that are kept, and whatever else is there.
    fn components(&self) -> usize {
        fs::read_dir(self.path("state/components")).map_or(0, Iterator::count)
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The version that answers.
#[track_caller]
fn version(host: &Process) -> String {
    get(host, "/version").ok().trim_end().to_owned()
}

fn get(host: &Process, target: &str) -> Answer {
    let line = host.stderr.wait_for("Serving HTTP on http://");
    let address = line.trim_start_matches("Serving HTTP on http://").trim_end_matches('/');
    Connection::open(address.parse().unwrap()).unwrap().send(&Request::get(target)).unwrap()
}

#[test]
fn a_deploy_on_a_full_disk_leaves_the_old_release_whole() {
    let Some(disk) = OnDisk::mount() else { return };
    let host = disk.run();
    eventually("it is kept", || (disk.components() == 1).then_some(()));
    disk.fill();
    disk.formation.build("web", "web-test", "two");
    let refused = disk.cli(["deploy"]).failed(1, "its components can't be kept in the state directory: ");
    assert!(
        refused.stderr.contains("No space left on device")
            && refused.stderr.contains("v1 is live, as before"),
        "{refused:#?}"
    );
    assert_eq!((version(&host).as_str(), disk.components()), ("one", 1));
    assert_eq!(disk.cli(["releases"]).done().lines().count(), 2, "there is v1 alone");

    // Killed, and started with the file that could not be deployed.
    host.signal(Signal::KILL);
    host.wait();
    let host = disk.run();
    let told = host.stderr.wait_for("is a new release, which can't be stored: v1 runs, as before");
    assert!(told.contains("formation.toml") && told.contains("free some space on it"), "{told}");
    assert_eq!(version(&host), "one");
    disk.cli(["deploy"]).failed(1, "its components can't be kept");

    disk.make_room();
    assert!(disk.cli(["deploy"]).done().ends_with("v2 is live\n"));
    assert_eq!(version(&host), "two");
    host.signal(Signal::TERM);
    host.wait().done();
}

#[test]
fn a_host_that_was_killed_on_a_full_disk_starts_again() {
    let Some(disk) = OnDisk::mount() else { return };
    let mut host = disk.run();
    disk.fill();
    for _ in 0..2 {
        host.signal(Signal::KILL);
        host.wait();
        host = disk.run();
        assert_eq!(version(&host), "one");
    }
    // The room that the store's end has made is taken, too.
    host.signal(Signal::TERM);
    host.wait().done();
    disk.fill();
    assert_eq!(version(&disk.run()), "one");
}

#[test]
fn a_first_start_without_any_room_says_what_to_do() {
    let Some(disk) = OnDisk::mount() else { return };
    disk.fill();
    let ended = disk.cli(["run"]).failed(3, "is full, so that it can't be opened: free some space on it");
    assert!(ended.stderr.contains("disk/state/store.db"), "{ended:#?}");
    disk.make_room();
    assert_eq!(version(&disk.run()), "one");
}

#[test]
fn a_guest_on_a_full_disk_is_told_so_and_everybody_else_goes_on() {
    for (version, target) in [("02", "/append?10000"), ("03", "/write?10000")] {
        for max in ["", ", max_bytes = \"1GiB\""] {
            // It writes for half a minute on a busy machine.
            let keys = format!(
                "timeout = \"10m\"\ndirs = [{{ host = \"disk\", guest = \"/data\", access = \"write\"{max} }}]"
            );
            let formation = Formation::new().process("web", &format!("hostile{version}"), &keys);
            let Some(disk) = OnDisk::mount_for(formation) else { return };
            let host = disk.run();
            let said = get(&host, target).ok();
            let is_told = ["InsufficientSpace", "insufficient-space"].iter().any(|code| said.contains(code));
            assert!(is_told, "{version} {target}: {said}");
            assert_eq!(get(&host, "/ok").ok(), "ok\n");
            assert!(!host.stderr.text().contains("max_bytes"), "{}", host.stderr.text());
            host.signal(Signal::TERM);
            host.wait().done();
        }
    }
}
