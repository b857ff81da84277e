//! A connection is served here from its first byte to its last, on whatever runtime polls it.
//!
//! ```text
//! (TLS handshake) -> what does it speak? -> HTTP/1.1 or HTTP/2 -> the client closes, something is overdue, or the
//!                                                                 host drains: no more requests, then the end
//! ```

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulConnection;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use wasmhost_engine::RequestScheme;

use super::answer::Failure;
use super::forwarding::Peer;
use super::gauge::{Gauge, Overdue};
use super::socket::Stream;
use super::stream::{Plain, Transport, Watched};
use super::{Ingress, Seat};

/// How long a connection may stay silent once the host drains. A client that has just sent a request on a
/// connection that it thinks is open gets its answer if it comes within this time.
const LINGER: Duration = Duration::from_secs(1);

/// How long a connection without any request in it may take to end once it is told to: for the last bytes of an
/// answer that its client reads slowly.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// How long bytes that can go out at once may take to do so, where there is no grace left.
const AT_ONCE: Duration = Duration::from_millis(100);

/// The properties that connections by one listener have in common.
pub(super) struct Via {
    pub(super) tls: Option<TlsAcceptor>,
    /// The authority of a request that names none.
    pub(super) authority: HeaderValue,
}

/// A connection's other end, and what it does.
pub(super) struct Client {
    pub(super) peer: Peer,
    pub(super) gauge: Arc<Gauge>,
}

/// The end of a wait.
enum Event<T> {
    Over(T),
    Overdue(Overdue),
    Drain,
}

impl Ingress {
    pub(super) async fn serve(self: Arc<Self>, stream: Stream, via: Arc<Via>, _seat: Seat) {
        let client = Arc::new(Client { peer: self.peer(&stream, &via), gauge: Arc::new(Gauge::new()) });
        let Ok(plain) = Plain::new(stream) else { return };
        let mut opening = pin!(self.open(plain, &via, client.gauge.clone()));
        let opened = match self.attend(opening.as_mut(), &client.gauge).await {
            Event::Drain => timeout(self.patience(LINGER), opening).await.ok(),
            Event::Over(opened) => Some(opened),
            Event::Overdue(_) => None,
        };
        let Some(Ok((stream, http2))) = opened else { return };
        let service = service_fn(|request: Request<Incoming>| {
            let (ingress, client) = (self.clone(), client.clone());
            async move { Ok::<_, Infallible>(ingress.answer(&client, request).await) }
        });
        let stream = TokioIo::new(stream);
        match http2 {
            true => self.carry(pin!(self.http2.serve_connection(stream, service)), &client).await,
            false => self.carry(pin!(self.http1.serve_connection(stream, service)), &client).await,
        }
    }

    fn peer(&self, stream: &Stream, via: &Via) -> Peer {
        let address = stream.address();
        Peer {
            address,
            shown: address.and_then(|address| HeaderValue::from_str(&address.to_string()).ok()),
            trusted: self.trusted_proxies.contains(address),
            scheme: if via.tls.is_some() { RequestScheme::Https } else { RequestScheme::Http },
            authority: via.authority.clone(),
        }
    }

    /// The handshake, if there is one, and whether the client speaks HTTP/2.
    async fn open(&self, stream: Plain, via: &Via, gauge: Arc<Gauge>) -> io::Result<(Watched, bool)> {
        let transport = match &via.tls {
            Some(acceptor) => timeout(self.timeouts.header, stream.by_tls(acceptor)).await??,
            None => Transport::Plain(stream),
        };
        let mut stream = Watched::new(transport, gauge);
        let http2 = stream.is_http2().await?;
        Ok((stream, http2))
    }

    /// Polls a connection until it is over. (That its client went away is the client's affair.)
    async fn carry<C>(&self, connection: Pin<&mut C>, client: &Client)
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let Some(Err(err)) = self.carry_to_end(connection, client).await else { return };
        if let Some(failure) = Failure::of_connection(&err) {
            self.refusals.head(failure, client.peer.address, Some(&err));
        }
    }

    /// How it ended; nothing, where it had to be left.
    async fn carry_to_end<C>(&self, mut connection: Pin<&mut C>, client: &Client) -> Option<C::Output>
    where
        C: GracefulConnection,
    {
        let gauge = &client.gauge;
        match self.attend(connection.as_mut(), gauge).await {
            Event::Over(ended) => return Some(ended),
            Event::Overdue(Overdue::Stuck) => return None,
            // The next read tells the client, and ends the connection.
            Event::Overdue(Overdue::Head) => {
                self.refusals.head(Failure::HEAD_STALLED, client.peer.address, None);
                gauge.expire();
            }
            Event::Overdue(Overdue::Idle) => connection.as_mut().graceful_shutdown(),
            Event::Drain => {
                if let Ok(ended) = timeout(self.patience(LINGER), connection.as_mut()).await {
                    return Some(ended);
                }
                connection.as_mut().graceful_shutdown();
            }
        }
        // Its client may have all that it will get: then nothing but the client itself is waited for. On HTTP/2 it is to
        // say first that it has heard the goodbye.
        let mut quiet_for = Duration::ZERO;
        loop {
            let most = match () {
                () if gauge.is_stuck() => 2 * LAST_BYTES,
                () if gauge.has_expired() => LAST_BYTES,
                () if gauge.is_halfway() => AT_ONCE,
                () if gauge.lingers() => LAST_BYTES,
                () => LINGER,
            };
            let step = self.patience(most.min(LINGER));
            if let Ok(ended) = timeout(step, connection.as_mut()).await {
                return Some(ended);
            }
            if gauge.overdue(&self.timeouts) == Err(Overdue::Stuck) {
                return None;
            }
            quiet_for = if gauge.is_quiet() { quiet_for + step } else { Duration::ZERO };
            if quiet_for >= self.patience(most) {
                return None;
            }
        }
    }

    /// So long, but not longer than grace lasts where the host drains.
    fn patience(&self, most: Duration) -> Duration {
        let left =
            self.grace_ends.get().map(|ends| ends.saturating_duration_since(std::time::Instant::now()));
        left.map_or(most, |left| left.clamp(AT_ONCE, most))
    }

    /// Polls what is to be done on a connection until it's done, something is overdue, or the host drains.
    async fn attend<F: Future>(&self, mut work: Pin<&mut F>, gauge: &Gauge) -> Event<F::Output> {
        let mut timer = pin!(sleep(Duration::ZERO));
        let mut drain = pin!(self.hang_up.cancelled());
        // Once they have been polled they wake this task by themselves, so that a request costs neither a poll of a
        // timer nor one of a token that all connections share.
        let (mut timer_set, mut drain_set) = (false, false);
        let mut watch = move |cx: &mut Context<'_>| {
            while !timer_set || timer.is_elapsed() {
                match gauge.overdue(&self.timeouts) {
                    Err(overdue) => return Poll::Ready(Event::Overdue(overdue)),
                    Ok(next) => timer.as_mut().reset(Instant::from_std(next)),
                }
                timer_set = timer.as_mut().poll(cx).is_pending();
            }
            if (!drain_set || self.is_draining()) && drain.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Drain);
            }
            drain_set = true;
            Poll::Pending
        };
        std::future::poll_fn(move |cx| match work.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Event::Over(output)),
            Poll::Pending => watch(cx),
        })
        .await
    }
}
