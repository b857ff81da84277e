//! The things that a stream of WASI 0.3 holds for as long as it lasts. The library makes the stream, and a future tells
//! its end.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use wasmtime::StoreContextMut;
use wasmtime::component::{FutureConsumer, FutureReader, Lift, Lower, Source};

use super::state::State;

/// Passes on what `ended` tells, and drops `held` then.
pub(super) fn hold_until<T>(
    store: &mut StoreContextMut<'_, State>,
    ended: FutureReader<T>,
    held: impl Send + Unpin + 'static,
) -> wasmtime::Result<FutureReader<T>>
where
    T: Lift + Lower + Send + Sync + Unpin + 'static,
{
    let (tell, told) = oneshot::channel();
    ended.pipe(&mut *store, Forward { tell: Some(tell), held: Some(held) })?;
    FutureReader::new(store, told)
}

struct Forward<T, H> {
    tell: Option<oneshot::Sender<T>>,
    held: Option<H>,
}

impl<T, H> FutureConsumer<State> for Forward<T, H>
where
    T: Lift + Send + Sync + Unpin + 'static,
    H: Send + Unpin + 'static,
{
    type Item = T;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        store: StoreContextMut<'_, State>,
        mut source: Source<'_, T>,
        _finish: bool,
    ) -> Poll<wasmtime::Result<()>> {
        let mut ended = None;
        source.read(store, &mut ended)?;
        self.held = None;
        if let (Some(tell), Some(ended)) = (self.tell.take(), ended) {
            // The guest may not want to know.
            let _ = tell.send(ended);
        }
        Poll::Ready(Ok(()))
    }
}
