//! `wasi:io` of WASI 0.2: a write is bounded by what its stream permits, and a stream's end gives back what it holds.

use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::p2::bindings::io::streams::{Host as _, HostInputStream, HostOutputStream};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, StreamError, StreamResult};

use super::replace::{Replacing, interface};
use super::state::State;

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut replacing = Replacing::new(linker);
    const WRITE: &str = "[method]output-stream.write";
    replacing.item(interface::STREAMS, WRITE)?.func_wrap(
        WRITE,
        |mut store, (stream, bytes): (Resource<DynOutputStream>, Vec<u8>)| {
            let state = store.data_mut();
            match write(state, &stream, bytes) {
                Ok(()) => Ok((Ok(()),)),
                Err(error) => Ok((Err(state.table.convert_stream_error(error)?),)),
            }
        },
    )?;
    const OUTPUT: &str = "output-stream";
    replacing.item(interface::STREAMS, OUTPUT)?.resource_async(
        OUTPUT,
        ResourceType::host::<DynOutputStream>(),
        |mut store, handle| {
            Box::new(async move {
                let state = store.data_mut();
                HostOutputStream::drop(&mut state.table, Resource::new_own(handle)).await?;
                state.holdings.give_back(handle);
                Ok(())
            })
        },
    )?;
    const INPUT: &str = "input-stream";
    replacing.item(interface::STREAMS, INPUT)?.resource_async(
        INPUT,
        ResourceType::host::<DynInputStream>(),
        |mut store, handle| {
            Box::new(async move {
                let state = store.data_mut();
                HostInputStream::drop(&mut state.table, Resource::new_own(handle)).await?;
                state.holdings.give_back(handle);
                Ok(())
            })
        },
    )
}

/// The library's streams of files take any write, whatever they have permitted. All others look at it themselves.
fn write(state: &mut State, stream: &Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
    let is_of_file = state.holdings.descriptor_of(stream.rep()).is_some();
    let stream = state.table.get_mut(stream)?;
    if is_of_file {
        let permitted = stream.check_write()?;
        if bytes.len() > permitted {
            return Err(StreamError::Trap(wasmtime::format_err!(
                "writes {} bytes to a file's stream where `check-write` permits {permitted}",
                bytes.len()
            )));
        }
    }
    stream.write(bytes.into())
}
