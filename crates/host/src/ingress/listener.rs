//! Where connections come from: TCP ports, unix sockets, and sockets that were open before the host was.
//!
//! Accepting is apart from serving: what comes out is a plain stream of the system, for whatever thread serves it.
//!
//! A listener of our own takes three steps to close, so that no client is reset: it begins no more handshakes, waits
//! for those under way, and hands out what has connected by then. One whose socket lives on closes at once: what waits in it is for
//! the next host, or for the next ingress of this one.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use socket2::{Domain, SockAddr, SockRef, Type};
use tokio::net::{TcpListener, UnixListener};
use wasmhost_config::{Http, Listen};

use super::handed_over::{HandedOver, Socket};
use crate::host::StartError;

/// Connections that wait in the kernel to be accepted, if its own bound (`net.core.somaxconn`) is no lower. A TCP
/// client that finds no room there tries again a second later and more, while the host may have nothing to do.
const WAITING_MAX: i32 = 4096;

/// Where the host serves requests, as it is printed: `http://127.0.0.1:8080/`, `unix:/run/app.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedAt {
    place: Place,
    tls: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for ServedAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp(address) => write!(f, "http{}://{address}/", if self.tls { "s" } else { "" }),
            Place::Unix(path) => {
                write!(f, "unix:{}{}", path.display(), if self.tls { " (TLS)" } else { "" })
            }
        }
    }
}

/// An open listener.
pub(crate) struct Listener {
    source: Source,
    served_at: ServedAt,
    /// The file of a unix socket that this host made. It is removed with the last of those that share it.
    file: Option<Arc<SocketFile>>,
    /// Its socket lives on when it closes: it was handed over, or another ingress of this host has it.
    kept: Arc<AtomicBool>,
}

/// The place and protocol that a listener was opened for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) place: Listen,
    pub(crate) tls: bool,
}

impl Wanted {
    /// All places that `[http]` names.
    pub(crate) fn by(http: &Http) -> Vec<Wanted> {
        let plain = http.listen.iter().map(|place| (place, false));
        let tls = http.tls.iter().flat_map(|tls| &tls.listen).map(|place| (place, true));
        plain.chain(tls).map(|(place, tls)| Wanted { place: place.clone(), tls }).collect()
    }
}

enum Source {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection, non-blocking, that no runtime knows yet.
pub(super) enum Stream {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// The listener on a socket that was handed over and listens on this address or path, if there is one.
pub(crate) async fn listen_on_open(
    wanted: &Wanted,
    handed_over: &mut HandedOver,
) -> Result<Option<Listener>, StartError> {
    let Wanted { place, tls } = wanted;
    let Some(socket) = open_already(place, handed_over).await else { return Ok(None) };
    let listener = Source::of_handed_over(socket).and_then(|source| Listener::new(source, None, *tls));
    let listener = listener.map_err(|err| StartError::Listen { listen: place.to_string(), err })?;
    listener.keep();
    Ok(Some(listener))
}

/// Opens one place: one listener, or as many as were handed over for it. `mode` is a unix socket's.
pub(crate) async fn listen(
    wanted: &Wanted,
    mode: u32,
    handed_over: &mut HandedOver,
) -> Result<Vec<Listener>, StartError> {
    let Wanted { place, tls } = wanted;
    let failed = |err| StartError::Listen { listen: place.to_string(), err };
    match place {
        Listen::Tcp(address) => {
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            // It has been listening, with room for 128.
            SockRef::from(&listener).listen(WAITING_MAX).map_err(failed)?;
            Listener::new(Source::Tcp(listener), None, *tls).map(|listener| vec![listener]).map_err(failed)
        }
        Listen::Unix(path) => {
            let (listener, file) = SocketFile::listen(path, mode).map_err(failed)?;
            let file = Some(Arc::new(file));
            Listener::new(Source::Unix(listener), file, *tls).map(|listener| vec![listener]).map_err(failed)
        }
        Listen::HandedOver(name) => {
            let sockets = handed_over.take(name.as_deref()).map_err(failed)?;
            let listener = |socket| {
                let listener = Listener::new(Source::of_handed_over(socket)?, None, *tls)?;
                listener.keep();
                Ok(listener)
            };
            sockets.into_iter().map(listener).collect::<io::Result<_>>().map_err(failed)
        }
    }
}

/// The socket that was handed over and listens on this address or path. systemd opens what the formation names, so that
/// one formation runs with it and without it.
async fn open_already(place: &Listen, handed_over: &mut HandedOver) -> Option<Socket> {
    if handed_over.is_empty() {
        return None;
    }
    match place {
        // A name that can't be looked up is told of by binding to it.
        Listen::Tcp(address) => {
            let mut addresses = tokio::net::lookup_host(address).await.ok()?;
            addresses.find_map(|address| handed_over.take_tcp(address))
        }
        Listen::Unix(path) => handed_over.take_unix(path),
        Listen::HandedOver(_) => None,
    }
}

impl Listener {
    fn new(source: Source, file: Option<Arc<SocketFile>>, tls: bool) -> io::Result<Listener> {
        let place = source.place()?;
        Ok(Listener { source, served_at: ServedAt { place, tls }, file, kept: Arc::default() })
    }

    /// Another handle on the same socket, by which a listener can be made later.
    pub(crate) fn spare(&self) -> io::Result<Spare> {
        let (served_at, file) = (self.served_at.clone(), self.file.clone());
        Ok(Spare {
            socket: self.source.share()?,
            served_at,
            file,
            kept: self.kept.clone(),
            is_kept: self.is_kept(),
        })
    }

    /// Its socket lives on when it closes.
    pub(crate) fn keep(&self) {
        self.kept.store(true, Relaxed);
    }

    /// Where it is, with the port that it got.
    pub(crate) fn served_at(&self) -> &ServedAt {
        &self.served_at
    }

    pub(super) fn is_kept(&self) -> bool {
        self.kept.load(Relaxed)
    }

    pub(super) fn is_tls(&self) -> bool {
        self.served_at.tls
    }

    /// What a request that names no host was most likely sent to.
    pub(super) fn authority(&self) -> String {
        match &self.served_at.place {
            Place::Tcp(address) => address.to_string(),
            Place::Unix(_) => "localhost".to_owned(),
        }
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<Stream> {
        // Out of this runtime again: it may be served by another.
        match &self.source {
            Source::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Stream::Tcp(stream.into_std()?, peer))
            }
            Source::Unix(listener) => listener.accept().await?.0.into_std().map(Stream::Unix),
        }
    }

    /// The first step to its end: from here on no client gets in that hasn't begun to.
    pub(super) fn refuse(&mut self) -> io::Result<()> {
        match &self.source {
            Source::Tcp(listener) => refuse_handshakes(listener),
            Source::Unix(_) => {
                self.file = None;
                Ok(())
            }
        }
    }

    /// The last step: closes, and returns the connections that it had taken by then. Their clients were promised an
    /// answer, and closing alone would reset them.
    pub(super) fn close(self) -> Vec<Stream> {
        let mut waiting = Vec::new();
        // The runtime may not know yet of connections that are there, but the system does.
        let Ok(source) = self.source.into_plain() else { return waiting };
        while let Ok(stream) = source.accept() {
            waiting.push(stream);
        }
        waiting
    }
}

/// An open socket that isn't listened on by this handle, nor known to any runtime.
pub(crate) struct Spare {
    socket: Socket,
    served_at: ServedAt,
    file: Option<Arc<SocketFile>>,
    /// The flag of the listener that it was made of.
    kept: Arc<AtomicBool>,
    is_kept: bool,
}

impl Spare {
    /// A listener on the same socket.
    pub(crate) fn listener(&self) -> io::Result<Listener> {
        let (served_at, file) = (self.served_at.clone(), self.file.clone());
        let kept = Arc::new(AtomicBool::new(self.is_kept));
        Ok(Listener { source: Source::of_handed_over(self.socket.share()?)?, served_at, file, kept })
    }

    /// The listener that it was made of leaves the socket to another.
    pub(crate) fn keep(&self) {
        self.kept.store(true, Relaxed);
    }
}

impl Source {
    fn of_handed_over(socket: Socket) -> io::Result<Source> {
        match socket {
            Socket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Source::Tcp)
            }
            Socket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                UnixListener::from_std(listener).map(Source::Unix)
            }
        }
    }

    fn share(&self) -> io::Result<Socket> {
        match self {
            Source::Tcp(listener) => {
                SockRef::from(listener).try_clone().map(|socket| Socket::Tcp(socket.into()))
            }
            Source::Unix(listener) => {
                SockRef::from(listener).try_clone().map(|socket| Socket::Unix(socket.into()))
            }
        }
    }

    fn into_plain(self) -> io::Result<Socket> {
        match self {
            Source::Tcp(listener) => listener.into_std().map(Socket::Tcp),
            Source::Unix(listener) => listener.into_std().map(Socket::Unix),
        }
    }

    fn place(&self) -> io::Result<Place> {
        match self {
            Source::Tcp(listener) => listener.local_addr().map(Place::Tcp),
            Source::Unix(listener) => {
                let address = listener.local_addr()?;
                Ok(Place::Unix(address.as_pathname().unwrap_or(Path::new("(without a name)")).to_owned()))
            }
        }
    }
}

impl Socket {
    fn share(&self) -> io::Result<Socket> {
        match self {
            Socket::Tcp(listener) => listener.try_clone().map(Socket::Tcp),
            Socket::Unix(listener) => listener.try_clone().map(Socket::Unix),
        }
    }

    /// It doesn't block.
    fn accept(&self) -> io::Result<Stream> {
        match self {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(Stream::Tcp(stream, peer))
            }
            Socket::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(Stream::Unix(stream))
            }
        }
    }
}

/// The file of a unix socket, which goes with it, unless somebody has put another one there.
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Opens a unix socket. What a dead process left there is replaced; what another one listens on is not.
    fn listen(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
        let address = SockAddr::unix(path)?;
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        match socket.bind(&address) {
            Err(err) if err.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path, &address)?;
                socket.bind(&address)?;
            }
            bound => bound?,
        }
        // Before it listens: nobody gets in who may not.
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        socket.listen(WAITING_MAX)?;
        socket.set_nonblocking(true)?;
        let made = fs::symlink_metadata(path)?;
        let file = SocketFile { path: path.to_owned(), device: made.dev(), inode: made.ino() };
        Ok((UnixListener::from_std(socket.into())?, file))
    }
}

fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that isn't a socket"));
    }
    let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Somebody answers, or is too busy to.
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if is_ours {
            // Whoever finds it later replaces it; that is no reason to leave it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// From here on the listener begins no handshake, and finishes those that it has begun, so that nothing comes between
/// the last accept and the end. Clients try again for a moment, and then find it closed.
#[cfg(target_os = "linux")]
fn refuse_handshakes(listener: &TcpListener) -> io::Result<()> {
    use socket2::SockFilter;
    /// A socket filter, as linux/filter.h writes it, over the TCP header: drop what has SYN set, keep the rest.
    const DROP_SYN: [SockFilter; 4] = [
        // BPF_LD | BPF_B | BPF_ABS: the byte with the flags
        SockFilter::new(0x30, 0, 0, 13),
        // BPF_JMP | BPF_JSET | BPF_K: with SYN the next instruction, otherwise the one behind it
        SockFilter::new(0x45, 0, 1, 0x02),
        // BPF_RET | BPF_K
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
    SockRef::from(listener).attach_filter(&DROP_SYN)
}

#[cfg(not(target_os = "linux"))]
fn refuse_handshakes(_listener: &TcpListener) -> io::Result<()> {
    Ok(())
}
