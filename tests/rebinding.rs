//! Names that lead back: a name server of the test's own, in namespaces of its own, answers as an attacker's would. The
//! host asks it as it asks any: by /etc/resolv.conf.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rustix::process::geteuid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::harness::http::{Answer, Connection, Request};
use crate::harness::{Formation, PATIENCE, Process};

const SCRIPT: &str = r#"
ip link set lo up
ip address add 10.9.9.9/32 dev lo
mount --bind "$1/resolv.conf" /etc/resolv.conf
if [ -e /etc/nsswitch.conf ]; then mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf; fi
echo ready
exec sleep 100000
"#;

/// A network with nothing in it but this machine, and this test's names.
struct Network {
    formation: Formation,
    /// Holds the namespaces.
    holder: Child,
}

impl Network {
    /// `None` where there can be no namespaces.
    fn new(formation: Formation) -> Option<Network> {
        fs::write(formation.path("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:5 attempts:2\n")
            .unwrap();
        fs::write(formation.path("nsswitch.conf"), "hosts: dns\n").unwrap();
        let left_out = |why: &str| println!("LEFT OUT: {why}, so that no name server lied to a host");
        if !geteuid().is_root() {
            left_out("only root can enter a network namespace with one thread");
            return None;
        }
        let mut unshare = Command::new("unshare");
        unshare.args(["-m", "-n", "sh", "-ec", SCRIPT, "sh"]).arg(formation.folder());
        unshare.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let Ok(mut holder) = unshare.spawn() else {
            left_out("there is no unshare");
            return None;
        };
        let (mut line, stdout) = (String::new(), holder.stdout.take().unwrap());
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let network = Network { formation, holder };
        if line != "ready\n" {
            left_out("there can be no network of its own here");
            return None;
        }
        Some(network)
    }

    /// Does something in the network. Sockets that are made there stay there.
    fn inside<R: Send>(&self, act: impl FnOnce() -> R + Send) -> R {
        let namespace = File::open(format!("/proc/{}/ns/net", self.holder.id())).unwrap();
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                act()
            });
            inside.join().unwrap()
        })
    }

    /// Runs a host there, and says where it serves.
    fn run(&self) -> (Process, SocketAddr) {
        let folder = self.formation.folder().to_str().unwrap();
        let enter = format!("exec nsenter -t {} -m -n --wd={folder} -- \"$0\" \"$@\"", self.holder.id());
        let host = Process::start_after(self.formation.folder(), &enter, ["run"]);
        host.stderr.wait_for("all instances are up");
        let line = host.stderr.wait_for("Serving HTTP on http://");
        let address = line.trim_start_matches("Serving HTTP on http://").trim_end_matches('/');
        (host, address.parse().unwrap())
    }

    fn get(&self, host: SocketAddr, target: &str) -> Answer {
        self.inside(|| Connection::open(host).unwrap().send(&Request::get(target)).unwrap())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The addresses of a name: those that a test means, by its first label. One changes with each question.
fn addresses(name: &str, asked: usize) -> Vec<Ipv4Addr> {
    let this_machine = Ipv4Addr::LOCALHOST;
    let elsewhere = Ipv4Addr::new(192, 0, 2, 1);
    match name.split('.').next().unwrap() {
        "loop" => vec![this_machine],
        "own" => vec![Ipv4Addr::new(10, 9, 9, 9)],
        "any" => vec![Ipv4Addr::UNSPECIFIED],
        "metadata" => vec![Ipv4Addr::new(169, 254, 169, 254)],
        "both" => vec![elsewhere, this_machine],
        "changing" if asked.is_multiple_of(2) => vec![elsewhere],
        "changing" => vec![this_machine],
        _ => vec![],
    }
}

/// Answers questions for IPv4 addresses, and says of all others that there is nothing. Counts the former.
fn serve_names(socket: &UdpSocket, asked: &AtomicUsize) {
    let mut question = [0; 512];
    while let Ok((bytes, from)) = socket.recv_from(&mut question) {
        let question = &question[..bytes];
        // Each label with its length before it, from behind the head on.
        let (mut name, mut at) = (Vec::new(), 12);
        while question[at] != 0 {
            let end = at + 1 + usize::from(question[at]);
            name.push(String::from_utf8_lossy(&question[at + 1..end]).into_owned());
            at = end;
        }
        let is_v4 = question[at + 1..at + 3] == [0, 1];
        let found = if is_v4 { addresses(&name.join("."), asked.fetch_add(1, Relaxed)) } else { vec![] };
        let mut answer = [&question[..2], &[0x81, 0x80, 0, 1, 0, found.len() as u8, 0, 0, 0, 0]].concat();
        answer.extend_from_slice(&question[12..at + 5]);
        for address in found {
            // The name of the question, an address of the Internet, to be kept for no time.
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
            answer.extend_from_slice(&address.octets());
        }
        let _ = socket.send_to(&answer, from);
    }
}

#[test]
fn a_name_that_a_wildcard_grants_leads_nowhere_near_whatever_its_server_says() {
    let formation = Formation::web("outbound = [\"*.evil.test:7000\"]").process(
        "outright",
        "web-test",
        "route = \"outright.example\"\noutbound = [\"loop.evil.test:7000\"]",
    );
    let Some(network) = Network::new(formation) else { return };
    let (names, near) = network.inside(|| {
        let near = TcpListener::bind("0.0.0.0:7000").unwrap();
        near.set_nonblocking(true).unwrap();
        (UdpSocket::bind("127.0.0.1:53").unwrap(), near)
    });
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = asked.clone();
    std::thread::spawn(move || serve_names(&names, &counting));
    let (_host, address) = network.run();
    let ways = |name: &str| [format!("/fetch?url=http://{name}:7000/"), format!("/connect?addr={name}:7000")];
    for name in ["loop", "own", "any", "metadata", "both", "changing"] {
        // Twice the number of times that its addresses change in.
        for target in ways(&format!("{name}.evil.test")).iter().cycle().take(8) {
            let answer = network.get(address, target);
            assert_eq!(answer.status, 500, "{target}: {answer:?}");
            assert!(near.accept().is_err(), "{target} led to this machine");
        }
    }
    assert!(asked.load(Relaxed) >= 6 * 8, "the host asked this name server");

    // The same name, granted outright.
    let asking = |target: &str| Request::get(target).header("host", "outright.example");
    for target in ways("loop.evil.test") {
        let listener = near.try_clone().unwrap();
        let answering = std::thread::spawn(move || answer_one(&listener));
        let answer = network.inside(|| Connection::open(address).unwrap().send(&asking(&target)).unwrap());
        answering.join().unwrap();
        assert!(answer.status == 200, "{target}: {answer:?}");
    }
}

/// Takes one connection, answers on it, and closes it.
fn answer_one(listener: &TcpListener) {
    use std::io::{Read, Write};
    let (mut stream, _) = crate::harness::eventually("somebody connects", || listener.accept().ok());
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A request, or the end of a connection on which nothing is sent.
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}
