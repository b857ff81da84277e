//! An http component of WASI 0.3 that takes what the host has, as `hostile02` does: see there.
//!
//! | path | takes |
//! | --- | --- |
//! | `/fields?N` | N maps of header fields of 100 KiB |
//! | `/authority?N` | a request with an authority of N bytes |
//! | `/error?N` | answers with an error of N bytes |
//! | `/lookup?N` | a look-up of a name of N bytes |
//! | `/tcp?N`, `/udp?N` | N sockets |
//! | `/files?N` | N times the file `file` of the first directory |
//! | `/file-streams?N` | N streams of that file, all else of it dropped |
//! | `/listings?N` | N listings of the first directory, of which none is read; then the entries of one |
//! | `/timers?N` | N timers |
//! | `/open?PATH` | opens the path in the first directory |
//! | `/change?PATH` | makes a directory there |
//! | `/append?N`, `/write?N` | N pieces of 4 KiB to a file of the first directory, at its end or from its beginning |
//! | `/size?N` | that file's size |
//! | `/create?N`, `/directories?N` | N of them in the first directory |
//! | `/move?PATH` | a file of the second directory gets a name in the first |
//! | `/list` | how many entries the first directory has |

use std::fmt::Debug;

use futures::future::{FutureExt, join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use wasip3::clocks::monotonic_clock;
use wasip3::filesystem::preopens::get_directories;
use wasip3::filesystem::types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags};
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types::{IpAddressFamily, TcpSocket, UdpSocket};
use wasip3::{spawn_local, wit_future, wit_stream};

wasip3::http::service::export!(Hostile);

struct Hostile;

impl wasip3::exports::http::handler::Guest for Hostile {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let count: usize = query.parse().unwrap_or(0);
        let said = match path {
            "/ok" => "ok\n".to_owned(),
            "/fields" => {
                take(count, async || {
                    let fields = Fields::new();
                    fields.append("x-large", &vec![b'x'; 100 << 10]).map(|()| fields)
                })
                .await
            }
            "/authority" => take(1, async || made().set_authority(Some(&"a".repeat(count)))).await,
            "/error" => {
                return Err(ErrorCode::InternalError(Some("\u{1b}[2J\nfalse line ".repeat(count / 16))));
            }
            "/lookup" => take(1, async || resolve_addresses("n".repeat(count)).await).await,
            "/tcp" => take(count, async || TcpSocket::create(IpAddressFamily::Ipv4)).await,
            "/udp" => take(count, async || UdpSocket::create(IpAddressFamily::Ipv4)).await,
            "/files" => {
                let directory = first_directory();
                take(count, async || open(&directory, "file").await).await
            }
            "/file-streams" => {
                let directory = first_directory();
                take(count, async || open(&directory, "file").await.map(|file| file.read_via_stream(0))).await
            }
            "/listings" => listings(count).await,
            "/timers" => {
                let timers: FuturesUnordered<_> =
                    (0..count).map(|_| monotonic_clock::wait_for(3_600_000_000_000)).collect();
                // Each begins when it is looked at.
                let _ = timers.into_future().now_or_never();
                "begun\n".to_owned()
            }
            "/open" => take(1, async || open(&first_directory(), query).await).await,
            "/change" => {
                take(1, async || first_directory().create_directory_at(query.to_owned()).await).await
            }
            "/append" => write(count, true).await,
            "/write" => write(count, false).await,
            "/size" => take(1, async || created("new").await?.set_size(count as u64).await).await,
            "/create" => {
                let mut number = 0;
                take(count, async || {
                    number += 1;
                    created(&format!("file{number}")).await.map(drop)
                })
                .await
            }
            "/directories" => {
                let mut number = 0;
                take(count, async || {
                    number += 1;
                    first_directory().create_directory_at(format!("dir{number}")).await
                })
                .await
            }
            "/move" => {
                let directories = get_directories();
                let (to, from) = (&directories[0].0, &directories[1].0);
                take(1, async || from.rename_at(query.to_owned(), to, query.to_owned()).await).await
            }
            "/list" => {
                let (stream, ended) = first_directory().read_directory();
                format!("{}\n{:?}\n", stream.collect().await.len(), ended.await)
            }
            _ => "no such path\n".to_owned(),
        };
        Ok(answer(said.into_bytes()))
    }
}

/// Takes so many of them, or as many as there are, and says so.
async fn take<T, E: Debug>(count: usize, mut one: impl AsyncFnMut() -> Result<T, E>) -> String {
    let mut taken = Vec::new();
    while taken.len() < count {
        match one().await {
            Ok(more) => taken.push(more),
            Err(error) => {
                let error = format!("{error:?}");
                return format!("{}\n{}\n", taken.len(), &error[..error.len().min(200)]);
            }
        }
    }
    format!("{}\n", taken.len())
}

/// How many directories are listed at once, and what the last of them ended in; then how many entries one has.
async fn listings(count: usize) -> String {
    let directory = first_directory();
    let (streams, ends): (Vec<_>, Vec<_>) = (0..count).map(|_| directory.read_directory()).unzip();
    // A refused one has ended; the others wait for somebody who reads.
    let refused = join_all(ends.into_iter().map(async |ended| ended.await.is_err()));
    let waited = monotonic_clock::wait_for(200_000_000);
    futures::future::select(Box::pin(refused), Box::pin(waited)).await;
    drop(streams);
    let (stream, ended) = directory.read_directory();
    let entries = stream.collect().await;
    format!("{}\n{:?}\n", entries.len(), ended.await)
}

fn made() -> Request {
    let (_, trailers) = wit_future::new(|| Ok(None));
    Request::new(Fields::new(), None, trailers, None).0
}

fn first_directory() -> Descriptor {
    get_directories().remove(0).0
}

async fn open(
    directory: &Descriptor,
    path: &str,
) -> Result<Descriptor, wasip3::filesystem::types::ErrorCode> {
    let how = OpenFlags::empty();
    directory.open_at(PathFlags::SYMLINK_FOLLOW, path.to_owned(), how, DescriptorFlags::READ).await
}

async fn created(path: &str) -> Result<Descriptor, wasip3::filesystem::types::ErrorCode> {
    let (directory, flags) = (first_directory(), DescriptorFlags::WRITE);
    directory.open_at(PathFlags::SYMLINK_FOLLOW, path.to_owned(), OpenFlags::CREATE, flags).await
}

/// Writes so many pieces in one stream.
async fn write(count: usize, at_end: bool) -> String {
    let file = created("new").await.unwrap();
    let (mut stream, data) = wit_stream::new();
    let ended = if at_end { file.append_via_stream(data) } else { file.write_via_stream(data, 0) };
    spawn_local(async move {
        for _ in 0..count {
            if !stream.write_all(vec![b'x'; 4096]).await.is_empty() {
                break;
            }
        }
    });
    let ended = ended.await;
    format!("{}\n{ended:?}\n", file.stat().await.unwrap().size / 4096)
}

fn answer(text: Vec<u8>) -> Response {
    let (mut body, contents) = wit_stream::new();
    let (_none, trailers) = wit_future::new(|| Ok(None));
    spawn_local(async move { drop(body.write_all(text).await) });
    Response::new(Fields::new(), Some(contents), trailers).0
}
