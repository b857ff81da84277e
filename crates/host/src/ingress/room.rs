//! Room for connections: how many may be open, in all and of one address.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;
use tracing::warn;
use wasmhost_engine::AfterSlices;

use super::addresses::Counted;
use super::connection::Via;
use super::socket::Stream;
use super::{FULL_AGAIN, Ingress, Seat};

impl Ingress {
    /// Serves one more connection, if its address may have it.
    pub(super) fn begin(self: &Arc<Self>, stream: Stream, permit: OwnedSemaphorePermit, via: &Arc<Via>) {
        if let Some(counted) = self.count(&stream) {
            self.measures.connections_accepted.fetch_add(1, Relaxed);
            let seat = Seat { _counted: counted, _permit: permit };
            self.connections.spawn(AfterSlices::new(self.clone().serve(stream, via.clone(), seat)));
        }
    }

    /// Counts one more connection of its address, unless that has too many: then it is closed, with a line. Proxies that
    /// are trusted and unix sockets stand for many clients, and aren't counted.
    fn count(&self, stream: &Stream) -> Option<Option<Counted>> {
        let Stream::Tcp(_, address) = stream else { return Some(None) };
        let address = address.ip().to_canonical();
        if self.trusted_proxies.contains(Some(address)) {
            return Some(None);
        }
        let counted = self.addresses.count(address);
        if counted.is_none() {
            self.measures.connections_refused.fetch_add(1, Relaxed);
        }
        if counted.is_none() && self.crowded.has_room(()) {
            warn!(
                "a connection from {address} was closed at once: the address has as many as \
                 max_connections_per_address allows"
            );
        }
        counted.map(Some)
    }

    /// Connections that are open.
    pub(crate) fn open_connections(&self) -> usize {
        self.connections_max.saturating_sub(self.permits.available_permits())
    }

    /// Waits until one more connection may be open.
    pub(super) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Some(permit);
        }
        self.tell_full();
        self.permits.clone().acquire_owned().await.ok()
    }

    /// Once a minute at most.
    fn tell_full(&self) {
        let mut told = self.told_full.lock().unwrap_or_else(|poison| poison.into_inner());
        if told.is_none_or(|told| told.elapsed() > FULL_AGAIN) {
            *told = Some(Instant::now());
            let count = self.connections_max;
            warn!(
                "{count} connections are open, as many as max_connections allows: others wait until one closes"
            );
        }
    }
}
