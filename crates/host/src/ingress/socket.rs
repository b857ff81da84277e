//! A listening socket of the system, and the file of a unix one.

use std::fs::{self, Permissions};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, SockAddr, SockRef, Type};

/// Connections that wait in the kernel to be accepted, if its own bound (`net.core.somaxconn`) is no lower. A TCP
/// client that finds no room there tries again a second later and more, while the host may have nothing to do.
const WAITING_MAX: i32 = 4096;

/// See the module. No runtime knows it.
pub(super) enum Socket {
    Tcp(TcpListener),
    /// Another one takes its place where its file was lost.
    Unix(ArcSwap<UnixListener>),
}

/// Where a socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A connection, non-blocking, that no runtime knows yet.
pub(crate) enum Stream {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Stream {
    /// The client's address, where it has one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self {
            // One that came to `[::]` by IPv4 is known by its IPv4 address.
            Stream::Tcp(_, address) => Some(address.ip().to_canonical()),
            Stream::Unix(_) => None,
        }
    }
}

impl Socket {
    /// Listens on the first of these addresses that can be had. `beside` are sockets that have the same port on other
    /// addresses, and may include these: the system allows that to sockets which all say so.
    pub(super) fn tcp(addresses: &[SocketAddr], beside: &[&TcpListener]) -> io::Result<Socket> {
        let mut failed = None;
        for address in addresses {
            match listen(address, beside) {
                Ok(listener) => return Ok(Socket::Tcp(listener)),
                Err(err) => failed = Some(err),
            }
        }
        Err(failed.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
    }

    pub(super) fn place(&self) -> io::Result<Place> {
        match self {
            Socket::Tcp(listener) => listener.local_addr().map(Place::Tcp),
            Socket::Unix(listener) => {
                let address = listener.load().local_addr()?;
                Ok(Place::Unix(address.as_pathname().unwrap_or(Path::new("(without a name)")).to_owned()))
            }
        }
    }

    /// Another handle on the same one.
    pub(super) fn share(&self) -> io::Result<Socket> {
        match self {
            Socket::Tcp(listener) => listener.try_clone().map(Socket::Tcp),
            Socket::Unix(listener) => listener.load().try_clone().map(Socket::unix),
        }
    }

    pub(super) fn unix(listener: UnixListener) -> Socket {
        Socket::Unix(ArcSwap::from_pointee(listener))
    }

    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(listener) => listener.set_nonblocking(true),
            Socket::Unix(listener) => listener.load().set_nonblocking(true),
        }
    }

    /// The next connection. It doesn't block.
    pub(super) fn accept(&self) -> io::Result<Stream> {
        match self {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(Stream::Tcp(stream, peer))
            }
            Socket::Unix(listener) => {
                let (stream, _) = listener.load().accept()?;
                stream.set_nonblocking(true)?;
                Ok(Stream::Unix(stream))
            }
        }
    }
}

fn listen(address: &SocketAddr, beside: &[&TcpListener]) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    let bind_and_listen = || {
        socket.bind(&SockAddr::from(*address))?;
        socket.listen(WAITING_MAX)
    };
    let in_the_way: Vec<_> = beside.iter().filter(|other| overlaps(address, other)).collect();
    if in_the_way.is_empty() {
        bind_and_listen()?;
    } else {
        let all = || in_the_way.iter().map(|other| SockRef::from(**other)).chain([SockRef::from(&socket)]);
        all().try_for_each(|socket| socket.set_reuse_port(true))?;
        let bound = bind_and_listen();
        // No other program is to join them.
        all().try_for_each(|socket| socket.set_reuse_port(false))?;
        bound?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Whether a socket that listens keeps another one from this address though its own address is another.
fn overlaps(address: &SocketAddr, other: &TcpListener) -> bool {
    other.local_addr().is_ok_and(|other| other != *address && overlap(address, &other))
}

/// Whether two addresses are one, or one of them includes the other.
pub(super) fn overlap(one: &SocketAddr, other: &SocketAddr) -> bool {
    let is_any = |ip: IpAddr| ip.to_canonical().is_unspecified();
    one.port() == other.port() && (one == other || is_any(one.ip()) || is_any(other.ip()))
}

/// Whether two paths lead to the same file.
pub(super) fn is_one_file(one: &Path, other: &Path) -> bool {
    let file = |path| fs::symlink_metadata(path).map(|found| (found.dev(), found.ino())).ok();
    file(one).is_some_and(|one| file(other) == Some(one))
}

/// The file of a unix socket, which goes with it, unless somebody has put another one there.
pub(super) struct SocketFile {
    path: PathBuf,
    mode: u32,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Opens a unix socket. A socket that a dead process left there is replaced; one that another listens on is not.
    pub(super) fn listen(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
        let address = SockAddr::unix(path)?;
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        match socket.bind(&address) {
            Err(err) if err.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path, &address)?;
                socket.bind(&address)?;
            }
            bound => bound?,
        }
        let made = fs::symlink_metadata(path)?;
        let mut file = SocketFile { path: path.to_owned(), mode, device: made.dev(), inode: made.ino() };
        // Before it listens: nobody gets in who may not.
        file.set_mode(mode)?;
        socket.listen(WAITING_MAX)?;
        socket.set_nonblocking(true)?;
        Ok((socket.into(), file))
    }

    /// The same again, where the file was lost.
    pub(super) fn listen_again(&mut self) -> io::Result<UnixListener> {
        let (listener, mut made) = SocketFile::listen(&self.path, self.mode)?;
        // A file that is lost may have left its number to this one, which is not to go with it.
        std::mem::swap(self, &mut made);
        made.path.clear();
        Ok(listener)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is still there, and no other one in its place.
    pub(super) fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode))
    }

    pub(super) fn set_mode(&mut self, mode: u32) -> io::Result<()> {
        self.mode = mode;
        fs::set_permissions(&self.path, Permissions::from_mode(mode))
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
        if self.is_there() {
            // A listener that finds it later replaces it; that is no reason to leave it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// From here on the listener begins no handshake, and finishes those that it has begun, so that nothing comes between
/// the last accept and the end. Clients try again for a moment, and then find it closed.
#[cfg(target_os = "linux")]
pub(super) fn refuse_handshakes(listener: &TcpListener) -> io::Result<()> {
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

/// It begins handshakes again.
#[cfg(target_os = "linux")]
pub(super) fn allow_handshakes(listener: &TcpListener) -> io::Result<()> {
    SockRef::from(listener).detach_filter()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn refuse_handshakes(_listener: &TcpListener) -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn allow_handshakes(_listener: &TcpListener) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(address: &str, beside: &[&TcpListener]) -> io::Result<TcpListener> {
        match Socket::tcp(&[address.parse().unwrap()], beside)? {
            Socket::Tcp(listener) => Ok(listener),
            Socket::Unix(_) => unreachable!("it was opened for an address"),
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_socket_comes_beside_one_of_the_same_host_that_includes_its_address() {
        for (first, second) in
            [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("[::]", "127.0.0.1"), ("0.0.0.0", "[::]")]
        {
            let open = tcp(&format!("{first}:0"), &[]).unwrap();
            let port = open.local_addr().unwrap().port();
            let address = format!("{second}:{port}");
            // As another program would find it.
            assert_eq!(tcp(&address, &[]).unwrap_err().kind(), io::ErrorKind::AddrInUse, "{first} {second}");
            let beside = tcp(&address, &[&open]).unwrap();
            assert_eq!(tcp(&address, &[]).unwrap_err().kind(), io::ErrorKind::AddrInUse, "{first} {second}");
            drop(open);
            TcpStream::connect(("127.0.0.1", port)).unwrap();
            beside.set_nonblocking(false).unwrap();
            beside.accept().unwrap();
        }
    }

    #[test]
    fn the_first_address_that_can_be_had_is_taken() {
        let taken = tcp("127.0.0.1:0", &[]).unwrap().local_addr().unwrap();
        let held = tcp(&taken.to_string(), &[]).unwrap();
        let free = "127.0.0.1:0".parse().unwrap();
        assert!(matches!(Socket::tcp(&[taken, free], &[&held]).unwrap().place(), Ok(Place::Tcp(_))));
        assert_eq!(Socket::tcp(&[taken], &[]).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        assert!(Socket::tcp(&[], &[]).is_err());
    }
}
