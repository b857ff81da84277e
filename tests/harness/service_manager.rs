//! A service manager that listens to what a host tells it, as systemd does: sd_notify(3).

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// How often a listener looks whether it is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(crate) struct ServiceManager {
    place: String,
    heard: Arc<Heard>,
}

/// All messages so far, each with the time of its coming.
#[derive(Default)]
struct Heard {
    messages: Mutex<Vec<(Instant, String)>>,
    one_more: Condvar,
}

impl ServiceManager {
    /// Its socket is a file in this folder.
    pub(crate) fn in_folder(folder: &Path) -> ServiceManager {
        let place = folder.join("notify.sock").display().to_string();
        ServiceManager::at(UnixDatagram::bind(&place).unwrap(), place)
    }

    /// Its socket has a name that no file has.
    pub(crate) fn abstractly() -> ServiceManager {
        let name = format!("wasmhost-test-{}-{}", std::process::id(), fastrand::u64(..));
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        ServiceManager::at(UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"))
    }

    fn at(socket: UnixDatagram, place: String) -> ServiceManager {
        let heard = Arc::<Heard>::default();
        let listener = Arc::downgrade(&heard);
        std::thread::spawn(move || listen(&socket, &listener));
        ServiceManager { place, heard }
    }

    /// The value of NOTIFY_SOCKET.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Waits until a message has this line.
    #[track_caller]
    pub(crate) fn wait_for(&self, line: &str) {
        self.wait_until(line, |messages| {
            messages.iter().any(|message| message.lines().any(|found| found == line)).then_some(())
        });
    }

    /// Waits until the messages give an answer.
    #[track_caller]
    pub(crate) fn wait_until<T>(&self, what: &str, answer: impl Fn(&[&str]) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        let mut messages = self.heard.messages.lock().unwrap();
        loop {
            let texts: Vec<&str> = messages.iter().map(|(_, text)| text.as_str()).collect();
            if let Some(answer) = answer(&texts) {
                return answer;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {what:?} in {texts:#?}");
            messages = self.heard.one_more.wait_timeout(messages, left).unwrap().0;
        }
    }

    /// All messages so far.
    pub(crate) fn all(&self) -> Vec<String> {
        self.heard.messages.lock().unwrap().iter().map(|(_, text)| text.clone()).collect()
    }

    /// When messages with this beginning came.
    pub(crate) fn times_of(&self, beginning: &str) -> Vec<Instant> {
        let messages = self.heard.messages.lock().unwrap();
        messages.iter().filter(|(_, text)| text.starts_with(beginning)).map(|(time, _)| *time).collect()
    }
}

fn listen(socket: &UnixDatagram, heard: &Weak<Heard>) {
    let mut bytes = [0; 8192];
    socket.set_read_timeout(Some(LOOK_EVERY)).unwrap();
    loop {
        let received = socket.recv(&mut bytes);
        let Some(heard) = heard.upgrade() else { return };
        match received {
            Ok(length) => {
                let text = String::from_utf8(bytes[..length].to_vec()).unwrap();
                heard.messages.lock().unwrap().push((Instant::now(), text));
                heard.one_more.notify_all();
            }
            Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(err) => panic!("{err}"),
        }
    }
}
