//! How the shared client connects: each connection is counted among the descriptors that guests hold, and a name that
//! only a wildcard grants doesn't lead back to this machine. The address that was looked at is the one that is dialled.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use tower_service::Service;
use wasmtime_wasi_http::Error;

use super::near::is_near;
use crate::sandbox::descriptors::{Permit, Room};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why no connection was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotDialled {
    /// Guests hold all the descriptors that they may.
    TooMany,
    /// A wildcard's name leads to this machine.
    Near,
}

impl NotDialled {
    /// As the guest is told.
    pub(crate) fn code(self) -> Error {
        match self {
            NotDialled::TooMany => Error::ConnectionLimitReached,
            NotDialled::Near => Error::DestinationIpProhibited,
        }
    }
}

impl fmt::Display for NotDialled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotDialled::TooMany => "guests hold as many of the host's connections as they may",
            NotDialled::Near => "the name leads to this machine, and only a wildcard grants it",
        })
    }
}

impl std::error::Error for NotDialled {}

/// Looks names up as the system does.
#[derive(Clone)]
pub(crate) struct Resolver {
    system: GaiResolver,
    /// Whether addresses of this machine are left out.
    far_only: bool,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.system.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = self.system.call(name);
        let far_only = self.far_only;
        Box::pin(async move {
            let found: Vec<_> = found.await?.filter(|address| !(far_only && is_near(address.ip()))).collect();
            match found.is_empty() && far_only {
                true => Err(NotDialled::Near.into()),
                false => Ok(found.into_iter()),
            }
        })
    }
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Dialler {
    tcp: HttpConnector<Resolver>,
    room: Arc<Room>,
}

impl Dialler {
    /// `far_only` for names that wildcards grant.
    pub(crate) fn new(
        room: Arc<Room>,
        far_only: bool,
        settle: impl FnOnce(&mut HttpConnector<Resolver>),
    ) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(Resolver { system: GaiResolver::new(), far_only });
        settle(&mut tcp);
        Dialler { tcp, room }
    }
}

impl Service<Uri> for Dialler {
    type Response = Counted;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Counted, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Some(permit) = self.room.take_shared() else {
            return Box::pin(async { Err(NotDialled::TooMany.into()) });
        };
        let connecting = self.tcp.call(uri);
        Box::pin(async move { Ok(Counted { stream: connecting.await?, _permit: permit }) })
    }
}

type Stream = <HttpConnector<Resolver> as Service<Uri>>::Response;

/// A connection that is counted while it is open, also when no request uses it.
pub(crate) struct Counted {
    stream: Stream,
    _permit: Permit,
}

impl Connection for Counted {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

impl Read for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl Write for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn resolved(name: &str, far_only: bool) -> Result<Vec<SocketAddr>, BoxError> {
        let mut resolver = Resolver { system: GaiResolver::new(), far_only };
        Ok(resolver.call(name.parse()?).await?.collect())
    }

    #[tokio::test]
    async fn a_name_that_only_a_wildcard_grants_does_not_lead_back() {
        assert!(resolved("localhost", false).await.unwrap().iter().all(|found| found.ip().is_loopback()));
        let refused = resolved("localhost", true).await.unwrap_err();
        assert_eq!(refused.downcast_ref(), Some(&NotDialled::Near));
    }

    #[tokio::test]
    async fn a_connection_counts_while_it_is_open() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let uri: Uri = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let mut dialler = Dialler::new(Room::new(1), false, |_| {});
        let open = dialler.call(uri.clone()).await.unwrap();
        let refused = dialler.call(uri.clone()).await.err().unwrap();
        assert_eq!(refused.downcast_ref(), Some(&NotDialled::TooMany));
        drop(open);
        assert!(dialler.call(uri).await.is_ok());
    }
}
