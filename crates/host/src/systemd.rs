//! The service manager that started this process: systemd, or whatever else speaks sd_notify(3). The host tells it how
//! things stand by datagrams to the socket that `NOTIFY_SOCKET` names.
//!
//! Nothing here waits for the manager. A message goes out at once, or else waits in a short queue that is tried again.

use std::collections::VecDeque;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::warn;
use wasmhost_config::shown;

/// Messages that wait for a manager that takes none.
const WAITING_MAX: usize = 32;

/// How soon a message is tried again that the manager didn't take.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// How often the manager hears that something goes on which may take longer than its own timeouts allow.
const EXTEND_EVERY: Duration = Duration::from_secs(5);

/// How long each of these holds: two of them may get lost.
const EXTEND_BY: Duration = Duration::from_secs(15);

/// Bytes of a status text.
const STATUS_BYTES_MAX: usize = 1 << 10;

/// See the module. Without a manager every message is dropped. Clones are handles of the same one.
#[derive(Clone)]
pub struct ServiceManager {
    told: Option<Arc<Told>>,
    watchdog: Option<Duration>,
}

/// A manager that wants to be told.
struct Told {
    socket: UnixDatagram,
    line: Mutex<Line>,
    /// The manager knows that the host is up.
    is_ready: AtomicBool,
    /// Reloads under way. Locked while the manager is told, so that no end is told after the next begin.
    reloads: Mutex<u32>,
    has_failed: AtomicBool,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<String>,
    is_retried: bool,
}

impl ServiceManager {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn from_env() -> ServiceManager {
        let Some(place) = env::var_os("NOTIFY_SOCKET").filter(|place| !place.is_empty()) else {
            return ServiceManager::nobody();
        };
        let socket = match connect(&place) {
            Ok(socket) => socket,
            Err(err) => {
                warn!(
                    "the service manager is not told how the host stands: can't connect to {} (NOTIFY_SOCKET): {err}",
                    place.display()
                );
                return ServiceManager::nobody();
            }
        };
        let watchdog =
            watchdog(env::var_os("WATCHDOG_USEC"), env::var_os("WATCHDOG_PID"), std::process::id());
        ServiceManager { told: Some(Told::new(socket)), watchdog }
    }

    /// No manager: for programs that nobody started as a service.
    pub fn nobody() -> ServiceManager {
        ServiceManager { told: None, watchdog: None }
    }

    /// Whether there is one.
    pub(crate) fn is_there(&self) -> bool {
        self.told.is_some()
    }

    /// Says that the host serves with all of its counts.
    pub fn ready(&self) {
        if let Some(told) = &self.told {
            told.is_ready.store(true, Relaxed);
        }
        self.tell("READY=1".to_owned());
    }

    /// Says that a new release is on its way, and that it has ended (one way or the other) when the guard is dropped; of
    /// several guards when the last one is. Meanwhile the manager is asked for more time. A host that wasn't ready before
    /// isn't ready after that either.
    pub fn reloading(&self) -> Reloading {
        let told = self.told.as_ref().filter(|told| told.is_ready.load(Relaxed));
        if let Some(told) = told {
            let mut reloads = told.reloads();
            *reloads += 1;
            self.tell(format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_usec()));
        }
        Reloading { manager: told.map(|_| self.clone()), _extending: self.extend(None) }
    }

    /// Says that the host is going, and asks for more time as long as the guard lives, for `at_most` so long.
    pub(crate) fn stopping(&self, at_most: Duration) -> Extending {
        if let Some(told) = &self.told {
            told.is_ready.store(false, Relaxed);
        }
        self.tell("STOPPING=1".to_owned());
        self.extend(Some(at_most))
    }

    /// One line for people who ask the manager.
    pub fn status(&self, text: &str) {
        self.tell(format!("STATUS={}", shown::one_line(text, STATUS_BYTES_MAX)));
    }

    /// How often the manager's watchdog wants to hear of the supervisor: twice in the time that it allows.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// For the supervisor's loop alone: no other part of the host can say that the supervisor works.
    pub(crate) fn feed_watchdog(&self) {
        self.tell("WATCHDOG=1".to_owned());
    }

    fn extend(&self, at_most: Option<Duration>) -> Extending {
        if !self.is_there() {
            return Extending(None);
        }
        let manager = self.clone();
        let until = at_most.map(|at_most| Instant::now() + at_most);
        let extending = tokio::spawn(async move {
            while until.is_none_or(|until| Instant::now() < until) {
                manager.tell(format!("EXTEND_TIMEOUT_USEC={}", EXTEND_BY.as_micros()));
                tokio::time::sleep(EXTEND_EVERY).await;
            }
        });
        Extending(Some(extending.abort_handle()))
    }

    fn tell(&self, message: String) {
        let Some(told) = &self.told else { return };
        let mut line = told.line();
        if line.waiting.len() >= WAITING_MAX {
            return;
        }
        line.waiting.push_back(message);
        if !told.send(&mut line) && !line.is_retried {
            line.is_retried = true;
            tokio::spawn(retry(told.clone()));
        }
    }
}

impl Told {
    fn new(socket: UnixDatagram) -> Arc<Told> {
        Arc::new(Told {
            socket,
            line: Mutex::default(),
            is_ready: false.into(),
            reloads: Mutex::default(),
            has_failed: false.into(),
        })
    }

    fn reloads(&self) -> MutexGuard<'_, u32> {
        self.reloads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what waits, in its order; whether all of it has gone.
    fn send(&self, line: &mut Line) -> bool {
        while let Some(message) = line.waiting.front() {
            match self.socket.send(message.as_bytes()) {
                Ok(_) => {}
                Err(err) if is_full(&err) => return false,
                Err(err) => {
                    if !self.has_failed.swap(true, Relaxed) {
                        warn!("the service manager could not be told how the host stands: {err}");
                    }
                }
            }
            line.waiting.pop_front();
        }
        true
    }
}

/// Goes on until nothing waits any more.
async fn retry(told: Arc<Told>) {
    loop {
        tokio::time::sleep(RETRY_AFTER).await;
        let mut line = told.line();
        if told.send(&mut line) {
            line.is_retried = false;
            return;
        }
    }
}

fn is_full(err: &io::Error) -> bool {
    err.kind() == ErrorKind::WouldBlock
        || err.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error())
}

/// A deploy that the manager knows of, until it is dropped.
pub struct Reloading {
    manager: Option<ServiceManager>,
    _extending: Extending,
}

impl Drop for Reloading {
    fn drop(&mut self) {
        let Some(manager) = &self.manager else { return };
        let Some(told) = &manager.told else { return };
        let mut reloads = told.reloads();
        *reloads -= 1;
        // A host that stops meanwhile isn't ready any more.
        if *reloads == 0 && told.is_ready.load(Relaxed) {
            manager.ready();
        }
    }
}

/// Asks the manager for more time, until it is dropped.
pub(crate) struct Extending(Option<AbortHandle>);

impl Drop for Extending {
    fn drop(&mut self) {
        if let Some(extending) = &self.0 {
            extending.abort();
        }
    }
}

/// A socket that sends to this one: a path, or `@` and a name in the abstract namespace.
fn connect(place: &OsStr) -> io::Result<UnixDatagram> {
    let address = match place.as_bytes() {
        [b'@', name @ ..] => abstract_address(name)?,
        [b'/', ..] => SocketAddr::from_pathname(place)?,
        _ => {
            let expected = "expected an absolute path, or @ and a name in the abstract namespace";
            return Err(io::Error::new(ErrorKind::InvalidInput, expected));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_name: &[u8]) -> io::Result<SocketAddr> {
    Err(ErrorKind::Unsupported.into())
}

/// Half of the time that the watchdog allows, where it is meant for this process.
fn watchdog(usec: Option<OsString>, pid: Option<OsString>, own_pid: u32) -> Option<Duration> {
    let number = |text: &OsString| text.to_str()?.parse::<u64>().ok();
    if pid.is_some_and(|pid| number(&pid) != Some(own_pid.into())) {
        return None;
    }
    let usec = usec.as_ref().and_then(number).filter(|usec| *usec > 0)?;
    Some(Duration::from_micros(usec.div_ceil(2)))
}

fn monotonic_usec() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time_and_only_if_it_watches_this_process() {
        let fed = |usec: &str, pid: Option<&str>| watchdog(Some(usec.into()), pid.map(OsString::from), 7);
        let second = Some(Duration::from_secs(1));
        assert_eq!(fed("2000000", None), second);
        assert_eq!(fed("2000000", Some("7")), second);
        for pid in ["8", "", "seven", "-7"] {
            assert_eq!(fed("2000000", Some(pid)), None, "{pid}");
        }
        for usec in ["0", "", "two", "-1", "18446744073709551616"] {
            assert_eq!(fed(usec, None), None, "{usec}");
        }
        assert_eq!(fed("1", None), Some(Duration::from_micros(1)));
        assert_eq!(watchdog(None, Some("7".into()), 7), None);
    }

    #[test]
    fn a_place_that_is_no_socket_is_an_error() {
        for place in ["relative", "vsock:2:1234", "/nowhere/notify", ""] {
            assert!(connect(OsStr::new(place)).is_err(), "{place}");
        }
    }

    fn told(folder: &std::path::Path) -> (UnixDatagram, ServiceManager) {
        let place = folder.join("notify");
        let manager = UnixDatagram::bind(&place).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let told = Told::new(connect(place.as_os_str()).unwrap());
        (manager, ServiceManager { told: Some(told), watchdog: None })
    }

    fn next(manager: &UnixDatagram) -> String {
        let mut bytes = [0; 4096];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// The numbers of all messages that come until there are none for a moment.
    fn all_of(manager: &UnixDatagram) -> Vec<u32> {
        let mut bytes = [0; 64];
        let number = |length: usize, bytes: &[u8]| {
            let text = std::str::from_utf8(&bytes[..length]).unwrap();
            text.strip_prefix("STATUS=").unwrap().parse().unwrap()
        };
        std::iter::from_fn(|| manager.recv(&mut bytes).ok().map(|length| number(length, &bytes))).collect()
    }

    #[tokio::test]
    async fn messages_wait_for_a_manager_that_takes_none_and_keep_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let (manager, service) = told(folder.path());
        // As many as the system's queue and ours have room for, and more.
        (0..2_000).for_each(|n| service.status(&n.to_string()));
        let waiting = service.told.as_ref().unwrap().line().waiting.len();
        assert!((1..=WAITING_MAX).contains(&waiting), "{waiting}");
        manager.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut received: Vec<u32> = Vec::new();
        loop {
            let none_waits = service.told.as_ref().unwrap().line().waiting.is_empty();
            let (manager, before) = (manager.try_clone().unwrap(), received.len());
            let next = tokio::task::spawn_blocking(move || all_of(&manager));
            received.extend(next.await.unwrap());
            if none_waits && received.len() == before {
                break;
            }
        }
        assert!(received.len() > waiting && received.len() < 2_000, "{}", received.len());
        assert!(received.iter().copied().eq(0..u32::try_from(received.len()).unwrap()), "{received:?}");
    }

    #[tokio::test]
    async fn a_reload_ends_with_ready_where_the_host_was_ready() {
        let folder = tempfile::tempdir().unwrap();
        let (manager, service) = told(folder.path());
        drop(service.reloading());
        service.ready();
        let reloading = service.reloading();
        drop(reloading);
        service.status("two\nlines");
        assert_eq!(next(&manager), "READY=1");
        let reloading = next(&manager);
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        assert_eq!(next(&manager), "READY=1");
        let status = next(&manager);
        assert_eq!(status.lines().count(), 1, "{status}");
    }

    #[tokio::test]
    async fn the_last_of_several_reloads_ends_them() {
        let folder = tempfile::tempdir().unwrap();
        let (manager, service) = told(folder.path());
        service.ready();
        let (one, other) = (service.reloading(), service.reloading());
        drop(other);
        service.status("one goes on");
        drop(one);
        assert_eq!(next(&manager), "READY=1");
        for _ in 0..2 {
            assert!(next(&manager).starts_with("RELOADING=1\n"));
        }
        assert_eq!([next(&manager), next(&manager)], ["STATUS=one goes on", "READY=1"]);
    }

    #[tokio::test]
    async fn a_manager_that_has_gone_is_no_reason_to_stop() {
        let folder = tempfile::tempdir().unwrap();
        let (manager, service) = told(folder.path());
        drop(manager);
        service.ready();
        service.status("on");
        assert!(service.told.as_ref().unwrap().line().waiting.is_empty());
    }
}
