//! Hosts tell each other of queues with something new, by NOTIFY.
//!
//! A job's transaction doesn't notify: PostgreSQL would let one transaction that does commit at a time. A queue is told of
//! after the commit, at most once in 50 ms. Nobody relies on it: all look each second anyway.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::connect::{self, Connected, Connector};
use super::errors;
use super::session::{Db, Session};
use super::shared::Shared;
use super::writer::jitter;

/// The time between two notifications of one queue.
const TOLD_EVERY: Duration = Duration::from_millis(50);

/// How often to look whether there are jobs, though nobody said so.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often the connection is tried, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(5);

/// Notifications that wait, at most. One that is lost is a look that comes up to a second later.
const WAITING_MAX: usize = 1_024;

/// The connection that listens.
pub(super) struct Listening {
    session: Session,
    driver: JoinHandle<()>,
    /// The names of stores that have told of something.
    heard: mpsc::Receiver<String>,
}

impl Listening {
    pub(super) async fn on(connected: Connected) -> Db<Listening> {
        let Connected { session, driver } = connected;
        let (hear, heard) = mpsc::channel(WAITING_MAX);
        let driver = tokio::spawn(connect::drive(driver, move |notification| {
            // A full line holds a look already.
            let teller = notification.payload().split(' ').next().unwrap_or_default();
            let _ = hear.try_send(teller.to_owned());
        }));
        let listening = Listening { session, driver, heard };
        let channel = errors::identifier(&listening.session.place().schema);
        listening.session.run(&format!("LISTEN {channel}")).await?;
        Ok(listening)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Listens and tells for ever; connects again where the connection is lost. The looks go on meanwhile.
pub(super) async fn run(connector: Arc<Connector>, shared: Arc<Shared>, first: Listening) {
    let look = async {
        loop {
            tokio::time::sleep(jitter(LOOK_EVERY)).await;
            shared.beat();
            // A test moves the time itself, and waits for what it did.
            if !shared.time.is_given() {
                shared.wake();
            }
        }
    };
    let listen = async {
        let mut next = Some(first);
        loop {
            if let Some(listening) = next.take() {
                serve(&shared, listening).await;
            }
            tokio::time::sleep(jitter(LOOK_EVERY)).await;
            if let Ok(connected) = connector.connect().await {
                next = timeout(PING_EVERY, Listening::on(connected)).await.ok().and_then(Result::ok);
                // News that came meanwhile were not heard.
                shared.wake();
            }
        }
    };
    futures_util::future::join(look, listen).await;
}

/// Until the connection is lost.
async fn serve(shared: &Shared, mut listening: Listening) {
    let mut ping = tokio::time::interval(PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told_at = Instant::now() - TOLD_EVERY;
    loop {
        tokio::select! {
            heard = listening.heard.recv() => match heard {
                Some(teller) if teller == shared.name => {}
                Some(_) => shared.wake(),
                None => return,
            },
            () = shared.to_tell.notified() => {
                tokio::time::sleep_until(told_at + TOLD_EVERY).await;
                told_at = Instant::now();
                let news = shared.take_news();
                let channel = &shared.place.schema;
                let told: Vec<String> = news.iter().map(|queue| format!("{} {queue}", shared.name)).collect();
                let tell = "SELECT pg_notify($1, told) FROM unnest($2::text[]) AS told";
                match timeout(PING_EVERY, listening.session.query(tell, &[channel, &told])).await {
                    Ok(Ok(_)) => {}
                    _ => return,
                }
            }
            _ = ping.tick() => {
                if !matches!(timeout(PING_EVERY, listening.session.run("")).await, Ok(Ok(()))) {
                    return;
                }
            }
            _ = &mut listening.driver => return,
        }
    }
}
