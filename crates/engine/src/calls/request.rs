//! A request as a guest of WASI 0.3 gets it, and what it answers.

use std::pin::Pin;

use http::uri::{Authority, Scheme};
use http::{Request, header};
use wasmtime::component::{Accessor, ComponentNamedList, Lift, Lower, Resource, TypedFunc};
use wasmtime_wasi_http::p3::{self, bindings as async_http};
use wasmtime_wasi_http::{Error, FieldMap, WasiBody, WasiHttpView};

use super::exchange::Answer;
use crate::call::RequestScheme;
use crate::capability::state::State;
use crate::services::Trace;

/// One request in the guest, until there is a head, or an error code. The guest goes on with the body.
pub(crate) async fn answer_request(
    service: &async_http::Service,
    accessor: &Accessor<State>,
    request: Request<WasiBody>,
    scheme: RequestScheme,
    trace: Trace,
) -> wasmtime::Result<Result<Answer, Error>> {
    let (request, sent) = accessor.with(|mut access| hand_over(access.get(), request, scheme))?;
    match call_in(accessor, service.wasi_http_handler().func_handle(), request, trace).await? {
        Ok(response) => accessor.with(|mut access| {
            let response = access.get().http().table.delete(response)?;
            access.get().take_asked_for_chunks();
            let response = response.into_http(&mut access, sent)?;
            Ok(Ok(match access.get().take_asked_for_chunks() {
                true => Answer::Written(response),
                false => Answer::PassedOn(response),
            }))
        }),
        Err(code) => Ok(Err(code.into())),
    }
}

/// One call of an export, whose doings in the guest are part of this trace.
pub(crate) async fn call_in<P, R>(
    accessor: &Accessor<State>,
    handle: TypedFunc<(P,), (R,)>,
    given: P,
    trace: Trace,
) -> wasmtime::Result<R>
where
    (P,): ComponentNamedList + Lower + 'static,
    (R,): ComponentNamedList + Lift + 'static,
{
    let call = accessor.with(|mut access| -> wasmtime::Result<_> {
        let call = handle.start_call_concurrent(&mut access, (given,))?;
        if let Some(trace) = trace {
            access.get().traces.begin(call.task(), trace);
        }
        Ok(call)
    })?;
    let (answer,) = handle.finish_call_concurrent(accessor, call).await?;
    Ok(answer)
}

/// The fate of the request's body, which the guest is told once its answer is sent.
type Sent = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

fn hand_over(
    state: &mut State,
    request: Request<WasiBody>,
    scheme: RequestScheme,
) -> wasmtime::Result<(Resource<p3::Request>, Sent)> {
    let (head, body) = request.into_parts();
    let scheme = match scheme {
        RequestScheme::Http => Scheme::HTTP,
        RequestScheme::Https => Scheme::HTTPS,
    };
    let host = head.headers.get(header::HOST);
    let authority = match head.uri.authority() {
        Some(authority) => Some(authority.clone()),
        None => host.and_then(|host| Authority::try_from(host.as_bytes()).ok()),
    };
    let path = head.uri.path_and_query().cloned();
    let http = state.http();
    let headers = FieldMap::new_immutable(http.hooks, head.headers);
    let (request, sent) = p3::Request::new(head.method, Some(scheme), authority, path, headers, None, body);
    Ok((http.table.push(request)?, Box::pin(sent)))
}
