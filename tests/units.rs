//! The units of `export systemd`, as systemd itself finds them: looked at by `systemd-analyze`, and run by a systemd of
//! the test's own, in namespaces where it can touch nothing of the machine.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use crate::harness::http::{Connection, Request};
use crate::harness::{Formation, address_of_its_own, eventually};

/// A user that every Linux has, and that isn't root.
const USER: &str = "daemon";

/// A formation whose folder has a path that units must escape.
fn served() -> Formation {
    Formation::web(
        "dirs = [{ host = \"out 100%\", guest = \"/out\", access = \"write\" }]\nenv = { A = { from_env = \"FROM_SHELL\" } }",
    )
    .directory("out 100%")
    .http("listen = [\"127.0.0.1:8099\", \"unix:web.sock\", \"fd:more\"]")
    .top("grace = \"1m\"")
    .variable("FROM_SHELL", "x")
}

#[test]
fn units_are_written_with_what_to_do_next() {
    let formation = served();
    let said = formation.cli(["export", "systemd", "units", "--user", "shop"]).done();
    for part in [
        "wrote units/test.service",
        "wrote units/test.socket",
        "wrote units/test-more.socket",
        "useradd --system",
        "install -d -o shop -m 0700 ",
        "a line for each: FROM_SHELL=...",
        "systemctl enable --now test.service test.socket test-more.socket",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let folder = fs::canonicalize(formation.folder()).unwrap();
    let service = formation.read("units/test.service");
    for line in [
        "Type=notify".to_owned(),
        "NotifyAccess=main".to_owned(),
        "User=shop".to_owned(),
        "TimeoutStopSec=75s".to_owned(),
        "Sockets=test.socket test-more.socket".to_owned(),
        format!("WorkingDirectory={}", folder.display()),
        // Its folder is below /tmp, which the service has one of its own of.
        format!("BindReadOnlyPaths={}", folder.display()),
        format!("BindPaths={}/.wasmhost", folder.display()),
        format!("BindPaths=\"{}/out 100%%\"", folder.display()),
    ] {
        assert!(service.lines().any(|found| found == line), "{line} in {service}");
    }
    let socket = formation.read("units/test.socket");
    for line in
        ["ListenStream=127.0.0.1:8099".to_owned(), format!("ListenStream={}/web.sock", folder.display())]
    {
        assert!(socket.lines().any(|found| found == line), "{line} in {socket}");
    }
    assert!(formation.read("units/test-more.socket").contains("FileDescriptorName=more\n"));
    formation.cli(["export", "systemd", "units"]).failed(2, "test.service is there already");
    let refused = formation.cli(["export", "systemd", "units", "--force", "--user", "a b"]);
    assert!(refused.code == 2 && refused.stderr.contains("expected the name of a user"), "{refused:?}");
}

#[test]
fn a_path_that_no_unit_can_name_is_refused() {
    let formation = Formation::web("dirs = [{ host = \"it's\", guest = \"/out\", access = \"write\" }]")
        .directory("it's");
    let what = "the path has a quote, a backslash or a control character";
    formation.cli(["export", "systemd", "units"]).failed(2, what);
    assert!(!formation.path("units").exists(), "nothing is half done");
}

#[test]
fn systemd_takes_the_units_and_finds_them_safe() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("LEFT OUT: there is no systemd-analyze here, so that nobody has looked at the units");
        return;
    }
    let formation = served();
    formation.cli(["export", "systemd", "units", "--user", "shop"]).done();
    let units = ["units/test.service", "units/test.socket", "units/test-more.socket"];
    let units = units.map(|unit| formation.path(unit));
    let verified =
        Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let mut ours = said.lines().filter(|line| line.contains("test.") || line.contains("test-more"));
    assert!(verified.status.success() && ours.next().is_none(), "{said}");

    let mut security = Command::new("systemd-analyze");
    let security =
        security.args(["security", "--offline=true", "--no-pager"]).arg(&units[0]).output().unwrap();
    let said = String::from_utf8_lossy(&security.stdout).into_owned();
    let exposure = said.lines().find_map(|line| line.split_once("Overall exposure level for test.service: "));
    let exposure = exposure.unwrap_or_else(|| panic!("{said}\n{security:?}")).1.split_whitespace().next();
    assert!(exposure.unwrap().parse::<f64>().unwrap() < 2.0, "{said}");
}

#[test]
fn systemd_runs_what_was_exported_and_starts_it_again() {
    let Some(systemd) = Systemd::found() else {
        println!(
            "LEFT OUT: no systemd can be run here in namespaces of its own, so that the units were not run"
        );
        return;
    };
    let address = address_of_its_own();
    let formation = Formation::new()
        .with_guest("web-test", "web.wasm")
        .directory("out 100%")
        .directory(".wasmhost")
        .http(&format!("listen = \"{address}\""))
        .table("[process.web]\ncomponent = \"web.wasm\"\ndirs = [{ host = \"out 100%\", guest = \"/out\", access = \"write\" }]");
    // All that it needs is in its folder: there is no other in there.
    let binary = formation.path("wasmhost");
    fs::copy(env!("CARGO_BIN_EXE_wasmhost"), &binary).unwrap();
    let mut export = Command::new(&binary);
    let export = export.args(["export", "systemd", "units", "--user", USER]).current_dir(formation.folder());
    assert!(export.output().unwrap().status.success());
    give_to_user(&formation);
    let _systemd = systemd.start(&formation);

    // The socket is there before the host is, and after it was killed: whoever connects waits.
    let get = |path: &str| {
        eventually("an answer", || {
            connect(address)?.send(&Request::get(path)).ok().filter(|got| got.status == 200)
        })
        .ok()
    };
    assert_eq!(get("/ok"), "ok\n");
    let written = connect(address).unwrap().send(&Request::post("/write?path=/out/file", "text")).unwrap();
    assert_eq!((written.status, formation.read("out 100%/file").as_str()), (200, "text"));
    let pid = pid(&formation);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(get("/ok"), "ok\n");
}

fn connect(address: SocketAddr) -> Option<Connection> {
    Connection::open(address).ok()
}

/// The host's process. Its own number is another one, in there.
#[track_caller]
fn pid(formation: &Formation) -> u32 {
    let file = formation.file().into_os_string().into_encoded_bytes();
    let ends = [b"\0run\0".as_slice(), &file, b"\0"].concat();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let host =
        numbers.find(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(&ends)));
    host.expect("no host runs")
}

/// Everything in the folder is the user's, who may come to it.
fn give_to_user(formation: &Formation) {
    fs::set_permissions(formation.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    let given = Command::new("chown").args(["-R", USER]).arg(formation.folder()).status().unwrap();
    assert!(given.success());
}

/// A systemd that this machine has, and the namespaces to run it in.
struct Systemd {
    program: &'static str,
}

/// One that runs. All that it started goes with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Systemd {
    fn found() -> Option<Systemd> {
        let programs = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
        let program = programs.into_iter().find(|program| fs::metadata(program).is_ok())?;
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        if !rustix::process::geteuid().is_root() || !passwd.lines().any(|line| line.starts_with("daemon:")) {
            return None;
        }
        let script = format!("{SHUT_OFF}\nfindmnt -t cgroup2 /sys/fs/cgroup");
        let folder = tempfile::tempdir().ok()?;
        let tried = unshare().args(["sh", "-ec", &script, "sh"]).arg(folder.path()).output().ok()?;
        tried.status.success().then_some(Systemd { program })
    }

    /// Starts the units of a formation. Units of the machine aren't looked for: those that are asked for are empty here.
    fn start(&self, formation: &Formation) -> Running {
        for target in ["sysinit", "basic", "sockets", "shutdown", "network-online", "boot"] {
            let wants = if target == "boot" { "Wants=test.socket test.service\n" } else { "" };
            let unit = format!("[Unit]\nDescription={target}\nDefaultDependencies=no\n{wants}");
            fs::write(formation.path(&format!("units/{target}.target")), unit).unwrap();
        }
        let script = format!(
            "{SHUT_OFF}\nexport container=test SYSTEMD_UNIT_PATH=\"$1/units\"\nexec \"$2\" --system --unit=boot.target --show-status=no --log-target=console"
        );
        let log = fs::File::create(formation.path("systemd.log")).unwrap();
        let mut systemd = unshare();
        systemd.args(["sh", "-ec", &script, "sh"]).arg(formation.folder()).arg(self.program);
        systemd.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Running(systemd.spawn().unwrap())
    }
}

/// A command that is killed takes all of its processes with it.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--kill-child=KILL", "-p", "-f", "-m", "-C", "-u", "-i", "--mount-proc"]);
    command
}

/// Leaves nothing of the machine to be written but the folder that is the first argument.
const SHUT_OFF: &str = r#"
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/kept
mount --bind "$1" /run/kept
mount -o remount,bind,ro /
for place in /tmp /var/tmp /var/cache; do
    mount -t tmpfs -o mode=1777 tmpfs "$place"
done
if [ ! -d "$1" ]; then mkdir -p "$1"; fi
mount --move /run/kept "$1"
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
umount -R /sys/fs/cgroup || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
"#;
