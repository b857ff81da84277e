//! Requests, answers and header fields that a guest makes: what the host keeps of them for one instance is bounded,
//! however many handles they are spread over.

use std::any::Any;

use http::HeaderMap;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::p2::HeaderError;
use wasmtime_wasi_http::p2::bindings::http::types as plain;
use wasmtime_wasi_http::p2::types::{HostIncomingResponse, HostOutgoingRequest, HostOutgoingResponse};
use wasmtime_wasi_http::p3::bindings::http::types as concurrent;
use wasmtime_wasi_http::p3::{Request, Response};
use wasmtime_wasi_http::{FieldMap, WasiHttpView};

use super::replace::{Replacing, interface, returned};
use super::state::State;

/// Bytes of fields, paths and names that the host keeps for one instance.
const HELD_BYTES_MAX: usize = 16 << 20;

/// The bytes that a field costs beside its text.
const FIELD_BYTES: usize = 64;

/// Bodies that a guest may be writing at once: each keeps up to three pieces.
const BODIES_MAX: usize = 128;

/// An authority and a method that are longer, in bytes, are those of no server.
const AUTHORITY_BYTES_MAX: usize = 1_024;
const METHOD_BYTES_MAX: usize = 256;

impl State {
    /// Counts bytes that the guest adds to what the host keeps for it.
    fn add_fields(&mut self, bytes: usize) -> wasmtime::Result<()> {
        if !self.holdings.add_fields(bytes) {
            return Ok(());
        }
        let held: usize = self.table.iter_mut().map(|entry| held_bytes(&*entry)).sum();
        if held.saturating_add(bytes) > HELD_BYTES_MAX {
            wasmtime::bail!(
                "holds {} bytes of header fields and requests, the limit is {HELD_BYTES_MAX}",
                held.saturating_add(bytes)
            );
        }
        Ok(())
    }

    fn has_room_for_body(&mut self) -> bool {
        self.table.iter_mut().filter(|entry| has_body(&**entry)).take(BODIES_MAX).count() < BODIES_MAX
    }
}

/// Whether the pieces that a guest writes wait in it, until it is sent.
fn has_body(entry: &(dyn Any + Send)) -> bool {
    entry.downcast_ref().is_some_and(|request: &HostOutgoingRequest| request.body.is_some())
        || entry.downcast_ref().is_some_and(|response: &HostOutgoingResponse| response.body.is_some())
}

fn held_bytes(entry: &(dyn Any + Send)) -> usize {
    if let Some(fields) = entry.downcast_ref::<FieldMap>() {
        return map_bytes(fields);
    }
    if let Some(request) = entry.downcast_ref::<HostOutgoingRequest>() {
        let authority = request.authority.as_ref().map_or(0, String::len);
        let path = request.path_with_query.as_ref().map_or(0, String::len);
        return authority + path + METHOD_BYTES_MAX + map_bytes(&request.headers);
    }
    if let Some(response) = entry.downcast_ref::<HostOutgoingResponse>() {
        return map_bytes(&response.headers);
    }
    if let Some(response) = entry.downcast_ref::<HostIncomingResponse>() {
        return map_bytes(&response.headers);
    }
    if let Some(request) = entry.downcast_ref::<Request>() {
        let authority = request.authority.as_ref().map_or(0, |authority| authority.as_str().len());
        let path = request.path_with_query.as_ref().map_or(0, |path| path.as_str().len());
        return authority + path + METHOD_BYTES_MAX + map_bytes(&request.headers);
    }
    entry.downcast_ref::<Response>().map_or(0, |response| map_bytes(&response.headers))
}

fn map_bytes(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES).sum()
}

fn values_bytes(name: &str, values: &[Vec<u8>]) -> usize {
    values.iter().map(|value| name.len() + value.len() + FIELD_BYTES).sum()
}

fn list_bytes(fields: &[(String, Vec<u8>)]) -> usize {
    fields.iter().map(|(name, value)| name.len() + value.len() + FIELD_BYTES).sum()
}

/// The functions that make a map of fields larger, of both versions.
macro_rules! link_fields {
    ($replacing:ident, $interface:expr, $types:ident, $returned:ident) => {{
        const FROM: &str = "[static]fields.from-list";
        $replacing.item($interface, FROM)?.func_wrap(
            FROM,
            |mut store, (fields,): (Vec<(String, Vec<u8>)>,)| {
                store.data_mut().add_fields(list_bytes(&fields))?;
                $returned($types::HostFields::from_list(&mut store.data_mut().http(), fields))
            },
        )?;
        const SET: &str = "[method]fields.set";
        $replacing.item($interface, SET)?.func_wrap(
            SET,
            |mut store, (fields, name, values): (Resource<FieldMap>, String, Vec<Vec<u8>>)| {
                store.data_mut().add_fields(values_bytes(&name, &values))?;
                $returned($types::HostFields::set(&mut store.data_mut().http(), fields, name, values))
            },
        )?;
        const APPEND: &str = "[method]fields.append";
        $replacing.item($interface, APPEND)?.func_wrap(
            APPEND,
            |mut store, (fields, name, value): (Resource<FieldMap>, String, Vec<u8>)| {
                store.data_mut().add_fields(name.len() + value.len() + FIELD_BYTES)?;
                $returned($types::HostFields::append(&mut store.data_mut().http(), fields, name, value))
            },
        )?;
        // A clone shares its fields until one of the two is changed.
        const CLONE: &str = "[method]fields.clone";
        $replacing.item($interface, CLONE)?.func_wrap(
            CLONE,
            |mut store, (fields,): (Resource<FieldMap>,)| {
                let bytes = map_bytes(store.data().table.get(&fields)?);
                store.data_mut().add_fields(bytes)?;
                Ok(($types::HostFields::clone(&mut store.data_mut().http(), fields)?,))
            },
        )?;
    }};
}

/// The functions that give a request its texts. Texts that are too long are refused as those that aren't valid are.
macro_rules! link_request {
    ($replacing:ident, $interface:expr, $types:ident, $host:ident, $resource:ty, $name:literal) => {{
        const METHOD: &str = concat!("[method]", $name, ".set-method");
        $replacing.item($interface, METHOD)?.func_wrap(
            METHOD,
            |mut store, (request, method): (Resource<$resource>, $types::Method)| {
                if matches!(&method, $types::Method::Other(name) if name.len() > METHOD_BYTES_MAX) {
                    return Ok((Err(()),));
                }
                Ok(($types::$host::set_method(&mut store.data_mut().http(), request, method)?,))
            },
        )?;
        const AUTHORITY: &str = concat!("[method]", $name, ".set-authority");
        $replacing.item($interface, AUTHORITY)?.func_wrap(
            AUTHORITY,
            |mut store, (request, authority): (Resource<$resource>, Option<String>)| {
                let bytes = authority.as_ref().map_or(0, String::len);
                if bytes > AUTHORITY_BYTES_MAX {
                    return Ok((Err(()),));
                }
                store.data_mut().add_fields(bytes)?;
                Ok(($types::$host::set_authority(&mut store.data_mut().http(), request, authority)?,))
            },
        )?;
        const PATH: &str = concat!("[method]", $name, ".set-path-with-query");
        $replacing.item($interface, PATH)?.func_wrap(
            PATH,
            |mut store, (request, path): (Resource<$resource>, Option<String>)| {
                store.data_mut().add_fields(path.as_ref().map_or(0, String::len))?;
                Ok(($types::$host::set_path_with_query(&mut store.data_mut().http(), request, path)?,))
            },
        )?;
    }};
}

/// The same as [`returned`], for the library's other kind of error.
fn header_returned<T>(result: Result<T, HeaderError>) -> wasmtime::Result<(Result<T, plain::HeaderError>,)> {
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

/// `wasi:http` of WASI 0.2.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut replacing = Replacing::new(linker);
    link_fields!(replacing, interface::HTTP, plain, header_returned);
    link_request!(
        replacing,
        interface::HTTP,
        plain,
        HostOutgoingRequest,
        plain::OutgoingRequest,
        "outgoing-request"
    );
    const REQUEST: &str = "[method]outgoing-request.body";
    replacing.item(interface::HTTP, REQUEST)?.func_wrap(
        REQUEST,
        |mut store, (request,): (Resource<plain::OutgoingRequest>,)| {
            let state = store.data_mut();
            if !state.has_room_for_body() {
                return Ok((Err(()),));
            }
            Ok((plain::HostOutgoingRequest::body(&mut state.http(), request)?,))
        },
    )?;
    const RESPONSE: &str = "[method]outgoing-response.body";
    replacing.item(interface::HTTP, RESPONSE)?.func_wrap(
        RESPONSE,
        |mut store, (response,): (Resource<plain::OutgoingResponse>,)| {
            let state = store.data_mut();
            if !state.has_room_for_body() {
                return Ok((Err(()),));
            }
            Ok((plain::HostOutgoingResponse::body(&mut state.http(), response)?,))
        },
    )
}

/// `wasi:http` of WASI 0.3.
pub(crate) fn link_async(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut replacing = Replacing::new(linker);
    link_fields!(replacing, interface::ASYNC_HTTP, concurrent, returned);
    link_request!(replacing, interface::ASYNC_HTTP, concurrent, HostRequest, concurrent::Request, "request");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_count_with_what_they_cost_beside_their_text() {
        let mut fields = HeaderMap::new();
        fields.append("name", "value".parse().unwrap());
        fields.append("name", "".parse().unwrap());
        let bytes = 2 * ("name".len() + FIELD_BYTES) + "value".len();
        assert_eq!(map_bytes(&fields), bytes);
        assert_eq!(values_bytes("name", &[b"value".to_vec(), Vec::new()]), bytes);
        assert_eq!(list_bytes(&[("name".into(), b"value".to_vec()), ("name".into(), Vec::new())]), bytes);
    }
}
