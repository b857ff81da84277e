//! The host of a formation of this machine, or one whose socket is named: by its admin socket.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::header::HeaderValue;
use tokio::net::UnixStream;
use tokio::time::Instant;
use wasmhost_config::{LoadError, StoreUrl, default_state_dir, is_procfile};
use wasmhost_host::{
    AdminToken, Holder, StoredReleases, holder, is_in_use, is_trusted_user, running_state_dir, socket_path,
};

use super::CONNECT_TIMEOUT;
use crate::exit::{Exit, Failed};
use crate::formation_file::FormationFile;

/// How long a host may take to make its socket again that was deleted, and how often it is looked for. A host looks each
/// second.
const MADE_AGAIN_MAX: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// See the module.
pub(super) struct Local {
    /// None where the socket was named.
    pub(super) file: Option<FormationFile>,
    pub(super) state_dir: PathBuf,
    socket: PathBuf,
    /// For a socket of `[admin]`, which asks for a token.
    pub(super) authorization: Option<HeaderValue>,
}

impl Local {
    pub(super) fn of_file(file: FormationFile) -> Result<Local, Failed> {
        let state_dir = state_dir(&file)?;
        refuse_other(&file, &state_dir)?;
        Ok(Local::of(file, state_dir))
    }

    pub(super) fn of(file: FormationFile, state_dir: PathBuf) -> Local {
        let socket = socket_path(&state_dir);
        Local { file: Some(file), state_dir, socket, authorization: None }
    }

    /// The host with this socket, or with this state directory.
    pub(super) fn at(path: PathBuf, token: Option<&AdminToken>) -> Local {
        let authorization = token.map(AdminToken::header);
        let (state_dir, socket) = match path.is_dir() {
            true => (path.clone(), socket_path(&path)),
            false => (path.parent().unwrap_or(Path::new("")).to_owned(), path),
        };
        Local { file: None, state_dir, socket, authorization }
    }

    pub(super) fn refuse_other(&self) -> Result<(), Failed> {
        self.file.as_ref().map_or(Ok(()), |file| refuse_other(file, &self.state_dir))
    }

    /// See [`super::Client::stored_releases`].
    pub(super) fn stored_releases(&self, file: &FormationFile) -> Result<Option<StoredReleases>, String> {
        let absolute = std::path::absolute(file.path()).map_err(|err| err.to_string())?;
        let store = match wasmhost_config::load(file.path()) {
            Ok(formation) => formation.store,
            // A file with errors is most likely that of the usual place.
            Err(_) => StoreUrl::Sqlite(self.state_dir.join("store.db")),
        };
        StoredReleases::open(&self.state_dir, &absolute, &store)
    }

    pub(super) async fn connect(&self) -> Result<UnixStream, Failed> {
        let until = Instant::now() + MADE_AGAIN_MAX;
        let stream = loop {
            match tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(&self.socket)).await {
                Ok(Ok(stream)) => break stream,
                // Somebody has deleted the socket of a host, or it is the host's first moment.
                Ok(Err(err)) if is_nobody_there(&err) && is_in_use(&self.state_dir) => {
                    if Instant::now() >= until {
                        return Err(self.has_no_socket());
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Ok(Err(err)) => return Err(self.unreachable(&err)),
                Err(_) => {
                    let message = "the host does not answer: is its process stopped?";
                    return Err(Failed::new(Exit::NoHost, message));
                }
            }
        };
        self.refuse_stranger(&stream)?;
        Ok(stream)
    }

    /// Another user may have put a socket there, and is not to have what a request says.
    fn refuse_stranger(&self, stream: &UnixStream) -> Result<(), Failed> {
        let listener = stream.peer_cred().map_err(|err| self.unreachable(&err))?.uid();
        if is_trusted_user(listener) {
            return Ok(());
        }
        let message = format!(
            "the process that listens on {} is of the user {listener}, expected our own ({}) or root: nothing was sent to it; a host of another user is asked as that user, by `sudo -u`",
            self.socket.display(),
            rustix::process::geteuid().as_raw()
        );
        Err(Failed::new(Exit::NoHost, message))
    }

    /// A process holds the state directory, so that no other host can be started, and nobody finds it.
    fn has_no_socket(&self) -> Failed {
        let (socket, lock) = (self.socket.display(), self.state_dir.join("lock"));
        let message = format!(
            "a process holds {}, as a host does, and nobody can reach it: its socket {socket} is gone, and is not made again within {} s; look whether the process is stopped and {} can be written, or end it by a signal",
            lock.display(),
            MADE_AGAIN_MAX.as_secs(),
            self.state_dir.display()
        );
        Failed::new(Exit::NoHost, message)
    }

    fn unreachable(&self, err: &std::io::Error) -> Failed {
        let socket = self.socket.display();
        match (err.kind(), &self.file) {
            (ErrorKind::NotFound | ErrorKind::ConnectionRefused, Some(file)) => {
                let path = file.path().display();
                file.failed(
                    Exit::NoHost,
                    format!("no host runs {path}: start one with `wasmhost run {path}`"),
                )
            }
            (ErrorKind::NotFound | ErrorKind::ConnectionRefused, None) => Failed::new(
                Exit::NoHost,
                format!(
                    "no host listens on {socket}: name the `admin.sock` in the state directory of one that runs"
                ),
            ),
            _ => Failed::new(Exit::NoHost, format!("can't reach the host at {socket}: {err}")),
        }
    }
}

/// Whether no socket is there, or a dead one.
fn is_nobody_there(err: &std::io::Error) -> bool {
    matches!(err.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

/// Where the formation's host keeps its state. The file may have been broken while its host runs, or its variables may be
/// set in the host's environment alone. Then the host is looked for in the usual place. Where none is there, its
/// `state_dir` may have been changed since the host began.
fn state_dir(file: &FormationFile) -> Result<PathBuf, Failed> {
    let absolute = std::path::absolute(file.path())?;
    let said = match wasmhost_config::load(file.path()) {
        Ok(formation) => formation.state_dir,
        Err(LoadError::Invalid(_)) => default_state_dir(&absolute),
        Err(err) => return Err(file.failed(Exit::Usage, err)),
    };
    let elsewhere = if is_in_use(&said) { None } else { running_state_dir(&absolute) };
    Ok(elsewhere.unwrap_or(said))
}

/// Two formations may name one state directory: a verb for one of them is not for the other's host.
fn refuse_other(file: &FormationFile, state_dir: &Path) -> Result<(), Failed> {
    let absolute = std::path::absolute(file.path())?;
    let Holder::Other(running) = holder(state_dir, &absolute) else { return Ok(()) };
    // A Procfile and the formation.toml beside it are one formation.
    let is_one = running.parent() == absolute.parent() && (is_procfile(&running) || is_procfile(&absolute));
    let advice = match is_one {
        true => {
            format!("name it with -f, or stop that host and start it again to run {}", file.path().display())
        }
        false => {
            "name the formation that is meant with -f, and give each a `state_dir` of its own".to_owned()
        }
    };
    let message = format!(
        "the host with the state directory {} runs {}, not {}: {advice}",
        state_dir.display(),
        running.display(),
        file.path().display()
    );
    Err(file.failed(Exit::NoHost, message))
}
