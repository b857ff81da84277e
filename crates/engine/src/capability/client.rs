//! `wasi:http/client` of WASI 0.3, in the place of the library's, which it calls: a request without a path is for `/`,
//! and the future that tells whether a request was sent tells an error when it wasn't.

use http::header::HOST;
use http::uri::PathAndQuery;
use tokio::sync::oneshot;
use wasmtime::AsContextMut as _;
use wasmtime::component::{Access, Accessor, HasData, Linker, Resource};
use wasmtime_wasi::TrappableError;
use wasmtime_wasi_http::p3::bindings::http::client::{self, HostWithStore};
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p3::{Request, Response};
use wasmtime_wasi_http::{Error, WasiHttp, WasiHttpCtxView, WasiHttpView};

use super::state::State;

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
        let (answered, is_answered) = oneshot::channel::<Result<(), ErrorCode>>();
        let answer = match store.with(|mut access| prepare(&mut access, request, is_answered)) {
            // The library's first poll asks the hooks.
            Ok(request) => WasiHttp::send(&store.with_getter::<WasiHttp>(State::http), request).await,
            Err(err) => Err(err),
        };
        let answer = match answer.map_err(TrappableError::downcast) {
            Ok(response) => Ok(response),
            Err(Ok(code)) => Err(code),
            Err(Err(trap)) => return Err(TrappableError::trap(trap)),
        };
        // The guest may not want to know.
        let _ = answered.send(answer.as_ref().map(|_| ()).map_err(ErrorCode::clone));
        answer.map_err(TrappableError::from)
    }
}

/// The request as the library is to send it. The guest is told that it was sent once it has been answered and all of
/// its body is on its way.
fn prepare(
    access: &mut Access<'_, State, Client>,
    request: Resource<Request>,
    is_answered: oneshot::Receiver<Result<(), ErrorCode>>,
) -> Result<Resource<Request>, TrappableError<ErrorCode>> {
    let mut store = access.as_context_mut();
    State::find_trace(&mut store);
    let mut request = access.get().table.delete(request).map_err(TrappableError::trap)?;
    request.path_with_query.get_or_insert(PathAndQuery::from_static("/"));
    let (is_sent, sent) = oneshot::channel();
    let told = async move {
        match (is_answered.await, sent.await) {
            (Ok(Ok(())), Ok(sent)) => sent.await,
            (Ok(Err(code)), _) => Err(Error::from(code)),
            // The guest has given it up.
            _ => Err(Error::ConnectionTerminated),
        }
    };
    let (mut request, options) = request.into_http_with_getter(&mut *access, told, State::http)?;
    // The library adds it again.
    request.headers_mut().remove(HOST);
    let view = access.get();
    let (mut request, sent) = Request::from_http(view.hooks, request);
    // The receiver may be gone.
    let _ = is_sent.send(sent);
    request.options = options;
    view.table.push(request).map_err(TrappableError::trap)
}
