//! The connections at one place of `[admin]`. A client's share is bounded from its first byte on: a handshake, a head,
//! and the time until it has shown the token.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::super::server::converse;
use super::door::{Door, Visitor};
use crate::ingress::{Listener, Plain, Stream, Transport};
use crate::places;

/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// How long an answer may take whose place was left.
const LEFT_MAX: Duration = Duration::from_secs(30);

/// Accepts at one place until it is left, or another listener has its turn there.
pub(super) async fn accept(
    door: Arc<Door>,
    listener: Listener,
    tls: Option<TlsAcceptor>,
    left: CancellationToken,
) {
    let begin = |stream: Stream, _| {
        let visitor = Visitor::enter(&door, stream.address(), tls.is_some())?;
        Some(connection(Arc::new(visitor), stream, tls.clone(), left.clone()))
    };
    let failed = |err| warn!("the admin API can't accept a connection: {err}");
    // Strangers have a room of their own.
    places::accept(listener, left.clone(), || std::future::ready(()), begin, failed).await;
}

async fn connection(
    visitor: Arc<Visitor>,
    stream: Stream,
    tls: Option<TlsAcceptor>,
    left: CancellationToken,
) {
    let too_late = async {
        left.cancelled().await;
        tokio::time::sleep(LEFT_MAX).await;
    };
    let served = tokio::select! {
        served = serve(&visitor, stream, tls, left.clone()) => served,
        () = visitor.has_to_go() => Ok(()),
        () = too_late => Ok(()),
    };
    if let Err(err) = served {
        debug!("a connection of the admin API ended early: {err}");
    }
}

async fn serve(
    visitor: &Arc<Visitor>,
    stream: Stream,
    tls: Option<TlsAcceptor>,
    left: CancellationToken,
) -> std::io::Result<()> {
    visitor.turn().await;
    let plain = Plain::new(stream)?;
    let transport = match &tls {
        Some(acceptor) => timeout(HANDSHAKE_MAX, plain.by_tls(acceptor)).await??,
        None => Transport::Plain(plain),
    };
    let answer = |request| {
        let visitor = visitor.clone();
        async move { visitor.answer(request).await }
    };
    converse(transport, answer, left).await
}
