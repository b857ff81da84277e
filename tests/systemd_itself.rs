//! A host that systemd itself starts, watches and stops: a user's service manager in namespaces of its own.
//!
//! Where there is no systemd, or namespaces can't be had, the test is left out, and says so.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::Formation;

/// Runs in namespaces of its own, with the folder of the formation, the binary and the cache for arguments.
const SCRIPT: &str = r#"
set -u
FOLDER=$1 BINARY=$2 CACHE=$3
mount -t tmpfs tmpfs /run || exit 100
mkdir -p -m 0700 /run/systemd/system /run/units /run/user /run/home
export XDG_RUNTIME_DIR=/run/user HOME=/run/home SYSTEMD_UNIT_PATH=/run/units: SYSTEMD_PAGER=
cat > /run/units/shop.socket <<EOF
[Socket]
ListenStream=$FOLDER/shop.sock
FileDescriptorName=web
EOF
cat > /run/units/shop.service <<EOF
[Service]
Type=notify
WorkingDirectory=$FOLDER
ExecStart=$BINARY run formation.toml
Environment=WASMHOST_CACHE_DIR=$CACHE "WASMHOST_FAULT_HANG=the supervisor:$FOLDER/now"
WatchdogSec=5
TimeoutStartSec=120
TimeoutStopSec=60
LimitCORE=0
StandardOutput=append:$FOLDER/log
StandardError=append:$FOLDER/log
EOF
before=$(find /sys/fs/cgroup -type d 2>/dev/null | sort)
/lib/systemd/systemd --user 2>&1 | sed 's/^/systemd: /' >&2 &
for _ in $(seq 200); do
    systemctl --user show-environment > /dev/null 2>&1 && break
    sleep 0.1
done
systemctl --user show-environment > /dev/null 2>&1 || exit 100
state() {
    systemctl --user show shop.service -p ActiveState -p SubState -p Result -p StatusText | sort | tr '\n' ' '
}
until_state() {
    for _ in $(seq 600); do
        case $(state) in $1) break ;; esac
        sleep 0.1
    done
}
systemctl --user start shop.socket shop.service; echo "start: $? $(state)"
cd "$FOLDER"
"$BINARY" scale web=3 > /dev/null
until_state '*StatusText=web=3/3*'; echo "scaled: $(state)"
# Longer than the watchdog waits.
sleep 8; echo "watched: $(state)"
systemctl --user stop shop.service; echo "stop: $? $(state)"
systemctl --user start shop.service; echo "start again: $? $(state)"
touch now
until_state 'ActiveState=failed *'; echo "hung: $(state)"
rm now
systemctl --user reset-failed shop.service
systemctl --user start shop.service; echo "after that: $? $(state)"
systemctl --user stop shop.service shop.socket
systemctl --user exit
wait
# Groups that it has made on this machine.
find /sys/fs/cgroup -type d 2>/dev/null | sort | comm -13 <(echo "$before") - |
    grep -E '/(init\.scope|app\.slice)(/|$)' | sort -r | xargs -r rmdir 2>/dev/null
exit 0
"#;

#[test]
fn systemd_starts_watches_and_stops_a_host() {
    let formation = Formation::web("count = 2").http("listen = \"fd:web\"");
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
    let script = formation.path("script");
    fs::write(&script, SCRIPT).unwrap();
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "bash"]).arg(&script);
    unshare.arg(formation.folder()).arg(env!("CARGO_BIN_EXE_wasmhost")).arg(cache);
    let output = match unshare.stdin(Stdio::null()).output() {
        Ok(output) if Path::new("/lib/systemd/systemd").exists() => output,
        _ => return eprintln!("LEFT OUT: there is no systemd, or no unshare, on this machine"),
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let log = format!("{said}\n{}\n{}", String::from_utf8_lossy(&output.stderr), formation.read("log"));
    if said.is_empty() {
        return eprintln!("LEFT OUT: systemd can't be started in namespaces of its own here:\n{log}");
    }
    assert!(output.status.success(), "{log}");
    let line = |what: &str| {
        let beginning = format!("{what}: ");
        let line = said.lines().find_map(|line| line.strip_prefix(&beginning));
        line.unwrap_or_else(|| panic!("no {what:?} in {log}")).trim()
    };
    // A unit of Type=notify is started when the host says that it is ready.
    let running = "ActiveState=active Result=success StatusText=web=3/3 SubState=running";
    assert!(line("start").starts_with("0 ActiveState=active Result=success "), "{log}");
    assert_eq!(line("scaled"), running, "{log}");
    assert_eq!(line("watched"), running, "{log}");
    assert!(line("stop").starts_with("0 ActiveState=inactive Result=success "), "{log}");
    assert!(line("start again").starts_with("0 ActiveState=active "), "{log}");
    assert!(line("hung").starts_with("ActiveState=failed Result=watchdog "), "{log}");
    assert!(line("after that").starts_with("0 ActiveState=active Result=success "), "{log}");
}
