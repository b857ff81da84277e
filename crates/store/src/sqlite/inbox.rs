//! The wait for a message on a thread without a runtime, for as long as it may take.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use tokio::sync::mpsc::UnboundedReceiver;

/// The end of a wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received<T> {
    Message(T),
    /// The time is over.
    Nothing,
    /// There will be no more.
    End,
}

/// Waits for the next message, until then at most where there is a time.
pub(super) fn receive<T>(inbox: &mut UnboundedReceiver<T>, until: Option<Instant>) -> Received<T> {
    let Some(until) = until else { return inbox.blocking_recv().map_or(Received::End, Received::Message) };
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match inbox.poll_recv(&mut Context::from_waker(&waker)) {
            Poll::Ready(Some(message)) => return Received::Message(message),
            Poll::Ready(None) => return Received::End,
            Poll::Pending => {}
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Received::Nothing;
        }
        thread::park_timeout(left);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[test]
    fn a_wait_ends_by_a_message_by_its_time_and_with_the_last_sender() {
        let (sender, mut inbox) = unbounded_channel();
        let soon = || Some(Instant::now() + Duration::from_millis(5));
        let late = || Some(Instant::now() + Duration::from_secs(600));
        assert_eq!(receive(&mut inbox, soon()), Received::Nothing);
        let sends = thread::spawn(move || {
            sender.send(1).unwrap();
            sender.send(2).unwrap();
        });
        assert_eq!(receive(&mut inbox, late()), Received::Message(1));
        assert_eq!(receive(&mut inbox, None), Received::Message(2));
        assert_eq!(receive(&mut inbox, late()), Received::End);
        assert_eq!(receive(&mut inbox, None), Received::End);
        sends.join().unwrap();
    }
}
