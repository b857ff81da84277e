//! The example with a database, against a real server of PostgreSQL.
//!
//! It is ignored here, since the server is not there everywhere. `cargo xtask test` runs it where it finds one, and
//! names it otherwise.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, getuid, kill_process};

use crate::harness::http::Request;
use crate::harness::{Formation, Host, address_of_its_own, eventually};

/// A name and a password with characters that have a meaning in a URL.
const PASSWORD: &str = "s:e/c@r%et";

/// A server of its own. It is stopped when this is dropped.
struct Postgres {
    server: Child,
    address: SocketAddr,
    programs: PathBuf,
    folder: tempfile::TempDir,
}

impl Postgres {
    fn start() -> Postgres {
        let programs = programs().expect("PostgreSQL's server is installed (Debian: postgresql)");
        let folder = tempfile::tempdir().unwrap();
        let password = folder.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        // It refuses to run as root.
        let user = getuid().is_root().then(|| user("postgres").expect("the package made a user postgres"));
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).unwrap();
            chown(&password, Some(uid), Some(gid)).unwrap();
        }
        let data = folder.path().join("data");
        let mut init = command(&programs.join("initdb"), user);
        init.args(["--username=guestbook", "--auth=scram-sha-256", "--no-sync", "--pwfile"]).arg(&password);
        let made = init.arg("-D").arg(&data).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let address = address_of_its_own();
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let mut server = command(&programs.join("postgres"), user);
        server.arg("-D").arg(&data).args(["-h", &ip, "-F", "-p", &port, "-k"]);
        let server = server.arg(folder.path()).stderr(Stdio::null()).spawn().unwrap();
        let postgres = Postgres { server, address, programs, folder };
        eventually("the server takes connections", || {
            let ready = postgres.tool("pg_isready").arg("--quiet").status().unwrap();
            ready.success().then_some(())
        });
        postgres.sql("postgres", "CREATE DATABASE guestbook");
        postgres
    }

    fn tool(&self, name: &str) -> Command {
        let mut tool = Command::new(self.programs.join(name));
        let (ip, port) = (self.address.ip().to_string(), self.address.port().to_string());
        tool.args(["-h", &ip, "-U", "guestbook", "-p", &port]);
        tool.env("PGPASSWORD", PASSWORD).current_dir(self.folder.path());
        tool
    }

    fn sql(&self, database: &str, sql: &str) -> String {
        let answer = self.tool("psql").args(["-d", database, "-Atqc", sql]).output().unwrap();
        assert!(answer.status.success(), "{answer:?}");
        String::from_utf8(answer.stdout).unwrap()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A fast stop.
        let _ = kill_process(Pid::from_child(&self.server), Signal::INT);
        let _ = self.server.wait();
    }
}

fn command(program: &Path, user: Option<(u32, u32)>) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// Where Debian, and others, have the server's programs.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    folders.into_iter().find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
}

/// The numbers of a user and its group.
fn user(name: &str) -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[test]
#[ignore = "run by `cargo xtask test` where PostgreSQL is installed"]
fn postgres() {
    let postgres = Postgres::start();
    let address = postgres.address.to_string();
    let formation = Formation::example("postgres", &["web"])
        .replace("outbound = [\"127.0.0.1:5432\"]", &format!("outbound = [\"{address}\"]"))
        .variable("DATABASE_URL", format!("postgres://guestbook:s%3Ae%2Fc%40r%25et@{address}/guestbook"));
    let host = Host::run(&formation);
    assert_eq!(host.get("/").ok(), "Hello, world!\n");
    assert_eq!(host.get("/entries").ok(), "");
    for number in 1..=20 {
        // Nothing of it is SQL.
        let answer = host.post("/entries", format!("entry {number}'; DROP TABLE entries; --"));
        assert_eq!((answer.status, answer.text()), (201, format!("{number}\n")));
    }
    assert!(host.get("/entries").ok().starts_with("20: entry 20'; DROP TABLE entries; --\n19: "));
    assert_eq!(postgres.sql("guestbook", "SELECT count(*) FROM entries"), "20\n");
    // Each instance keeps its connection.
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'guestbook' AND client_port > 0 AND pid <> pg_backend_pid()";
    let connections = postgres.sql("guestbook", connections).trim().parse::<u32>().unwrap();
    assert!((1..=4).contains(&connections), "{connections}");
    // A refusal by the server costs neither the connection nor the instance. A connection that it closes is opened
    // again.
    assert_eq!(host.post("/entries", "zero\0byte").status, 400);
    assert_eq!(host.send(&Request::post("/entries", vec![b'x'; 5 << 10])).status, 413);
    postgres.sql(
        "guestbook",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'guestbook' AND client_port > 0 AND pid <> pg_backend_pid()",
    );
    for number in 0..8 {
        assert_eq!(host.post("/entries", format!("again {number}")).status, 201);
    }
    assert_eq!(host.ps().number("web", "restarts"), 0);
    // Another password is refused, and the client isn't told which one it was.
    let wrong = formation.variable("DATABASE_URL", format!("postgres://guestbook:wrong@{address}/guestbook"));
    host.stop().done();
    let host = Host::run(&wrong);
    assert_eq!(host.get("/entries").status, 500);
    let line = host.stdout().wait_for("the database refuses (28P01)");
    assert!(!line.contains("wrong@"), "{line}");
}
