//! A server of PostgreSQL for a test: its own data, its own port, stopped when it is dropped. The black-box tests have it too.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getuid, kill_process, kill_process_group};

/// A password with characters that have a meaning in a URL.
const PASSWORD: &str = "s:e/c@r%et";
const PASSWORD_IN_URL: &str = "s%3Ae%2Fc%40r%25et";

/// How long a server may take to start: to build its data on a busy machine is the most of it.
const START_MAX: Duration = Duration::from_secs(120);

/// See the module.
pub(crate) struct Server {
    process: Option<Child>,
    port: u16,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    folder: tempfile::TempDir,
    settings: Vec<String>,
}

impl Server {
    /// A running server, or none where PostgreSQL isn't installed, which is said.
    pub(crate) fn start() -> Option<Server> {
        Server::start_with(&[])
    }

    /// The same with settings, such as `max_connections=10`.
    pub(crate) fn start_with(settings: &[&str]) -> Option<Server> {
        let Some(programs) = programs() else {
            eprintln!("LEFT OUT: there is no server of PostgreSQL here (Debian: apt-get install postgresql)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        // It refuses to run as root.
        let user = getuid().is_root().then(|| user("postgres").expect("the package made a user postgres"));
        let password = folder.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        for path in [folder.path(), &password] {
            if let Some((uid, gid)) = user {
                chown(path, Some(uid), Some(gid)).unwrap();
            }
        }
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Server { process: None, port: 0, programs, user, folder, settings };
        let mut init = server.program("initdb");
        init.args(["--username=app", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"]);
        init.arg("--pwfile").arg(&password).arg("-D").arg(server.data());
        let made = init.output().unwrap();
        assert!(made.status.success(), "{made:?}");
        server.go();
        Some(server)
    }

    /// Starts it: first on a free port, and on the same one again after a stop.
    pub(crate) fn go(&mut self) {
        if self.port == 0 {
            self.port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        }
        let mut server = self.program("postgres");
        server.arg("-D").arg(self.data()).args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-k"]);
        server.arg(self.folder.path());
        for setting in self.settings.iter().map(String::as_str).chain(["max_connections=200", "fsync=off"]) {
            // The first of two counts here, since the last one would in the file.
            let name = setting.split('=').next().unwrap_or_default();
            let is_said = |said: &String| said.starts_with(name) && said != setting;
            if !self.settings.iter().any(is_said) {
                server.args(["-c", setting]);
            }
        }
        // A group of its own, so that all of it can be stopped and killed.
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        self.process = Some(server.process_group(0).stderr(log).spawn().unwrap());
        let until = Instant::now() + START_MAX;
        while !self.tool("pg_isready").arg("--quiet").status().unwrap().success() {
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "the server doesn't take connections: {}", log());
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the server ended: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A stop that ends its clients' connections.
    pub(crate) fn stop(&mut self) {
        self.end(Signal::INT);
    }

    /// A power cut, as far as the server sees it.
    pub(crate) fn kill(&mut self) {
        if let Some(process) = &self.process {
            let _ = kill_process_group(Pid::from_child(process), Signal::KILL);
        }
        self.end(Signal::KILL);
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut process) = self.process.take() {
            let _ = kill_process(Pid::from_child(&process), signal);
            let _ = process.wait();
        }
    }

    /// All of its processes stand still, and go on.
    pub(crate) fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        // Its children have sessions of their own.
        let postmaster = process.id();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            let parent =
                stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
            if parent == Some(postmaster) {
                let _ = kill_process(Pid::from_raw(pid).unwrap(), signal);
            }
        }
        kill_process(Pid::from_child(process), signal).unwrap();
    }

    /// The URL of a schema.
    pub(crate) fn url(&self, schema: &str) -> String {
        format!("postgres://app:{PASSWORD_IN_URL}@127.0.0.1:{}/postgres?schema={schema}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The answer to a statement, as `psql -At` prints it.
    pub(crate) fn sql(&self, sql: &str) -> String {
        let answer = self.tool("psql").args(["-d", "postgres", "-Atqc", sql]).output().unwrap();
        assert!(answer.status.success(), "{sql}: {answer:?}");
        String::from_utf8(answer.stdout).unwrap().trim_end().to_owned()
    }

    fn tool(&self, name: &str) -> Command {
        let mut tool = Command::new(self.programs.join(name));
        tool.args(["-h", "127.0.0.1", "-U", "app", "-p", &self.port.to_string()]);
        tool.env("PGPASSWORD", PASSWORD).current_dir(self.folder.path()).stdin(Stdio::null());
        tool
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.thaw();
        }
        self.end(Signal::INT);
    }
}

/// Where Debian, and others, have the server's programs.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let has = |folder: &Path, name: &str| folder.join(name).exists();
    folders.into_iter().find(|folder| has(folder, "initdb") && has(folder, "postgres") && has(folder, "psql"))
}

/// The numbers of a user and its group.
fn user(name: &str) -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}
