//! `wasi:http/client` of WASI 0.3, in the place of the library's, which it calls: a request without a path is for `/`,
//! and the future that tells whether a request was sent tells an error when it wasn't.

use http::header::HOST;
use http::uri::PathAndQuery;
use tokio::sync::oneshot;
use wasmtime::component::{Accessor, HasData, Linker, Resource};
use wasmtime_wasi::TrappableError;
use wasmtime_wasi_http::p3::bindings::http::client::{self, HostWithStore};
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p3::{Request, Response};
use wasmtime_wasi_http::{Error, WasiHttp, WasiHttpCtxView, WasiHttpView};

use crate::state::State;

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    client::add_to_linker::<State, Client>(linker, State::http)?;
    linker.allow_shadowing(false);
    Ok(())
}

struct Client;

impl HasData for Client {
    type Data<'a> = WasiHttpCtxView<'a>;
}

impl HostWithStore<State> for Client {
    async fn send(
        store: &Accessor<State, Client>,
        request: Resource<Request>,
    ) -> Result<Resource<Response>, TrappableError<ErrorCode>> {
        let (failed, has_failed) = oneshot::channel::<ErrorCode>();
        let request = store.with(|mut access| {
            let table = access.get().table;
            let mut request = table.delete(request).map_err(TrappableError::trap)?;
            request.path_with_query.get_or_insert(PathAndQuery::from_static("/"));
            let (is_sent, sent) = oneshot::channel();
            let told = async move {
                match (has_failed.await, sent.await) {
                    (Ok(code), _) => Err(Error::from(code)),
                    (Err(_), Ok(sent)) => sent.await,
                    // It was given up before it was sent.
                    (Err(_), Err(_)) => Err(Error::ConnectionTerminated),
                }
            };
            let (mut request, options) = request.into_http_with_getter(&mut access, told, State::http)?;
            // The library adds it again.
            request.headers_mut().remove(HOST);
            let view = access.get();
            let (mut request, sent) = Request::from_http(view.hooks, request);
            // Whoever was to be told may be gone.
            let _ = is_sent.send(sent);
            request.options = options;
            view.table.push(request).map_err(TrappableError::trap)
        })?;
        let answer = WasiHttp::send(&store.with_getter::<WasiHttp>(State::http), request).await;
        answer.map_err(|err| match err.downcast() {
            Ok(code) => {
                let _ = failed.send(code.clone());
                code.into()
            }
            Err(trap) => TrappableError::trap(trap),
        })
    }
}
