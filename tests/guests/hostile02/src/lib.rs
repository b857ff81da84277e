//! An http component of WASI 0.2 that takes what the host has. Each path takes another thing, and keeps it until the
//! request ends; the answer says how much of it there was, and why no more, on two lines.
//!
//! | path | takes |
//! | --- | --- |
//! | `/fields?N` | N maps of header fields of 100 KiB |
//! | `/clones?N` | N clones of one such map, each changed |
//! | `/authority?N` | a request with an authority of N bytes |
//! | `/method?N` | a request with a method of N bytes |
//! | `/paths?N` | N requests with a path of 60,000 bytes |
//! | `/bodies?N` | N requests' bodies, each with as much in it as it takes |
//! | `/stdout?N` | one write of N line ends, whatever is permitted |
//! | `/streams?N` | N streams of standard output, each written to as much as it permits |
//! | `/lookup?N` | a look-up of a name of N bytes |
//! | `/host?N` | a request to a host of N bytes |
//! | `/error?N` | answers with an error of N bytes |
//! | `/panic?N` | traps with a message of N bytes |
//! | `/tcp?N`, `/udp?N` | N sockets |
//! | `/files?N` | N times the file `file` of the first directory |
//! | `/file-streams?N` | N streams of that file, all else of it dropped |
//! | `/writes?N` | one write of N bytes to a file's stream, whatever is permitted |
//! | `/listings?N` | N listings of the first directory |
//! | `/poll?N` | waits for one pollable N times at once |
//! | `/requests?N` | N requests at once to the address in `TARGET` |
//! | `/open?PATH` | opens the path in the first directory |
//! | `/swap?FROM&TO` | renames FROM in the first directory, and makes a link to TO in its place |
//! | `/change?PATH` | makes a directory there |
//! | `/append?N`, `/overwrite?N`, `/zeroes?N`, `/later?N` | N pieces of 4 KiB to a file of the first directory: at its end, each anew, zeroes, each without waiting |
//! | `/write-at?N`, `/size?N` | a byte at this place of that file; its size |
//! | `/truncate?PATH`, `/unlink?PATH` | empties or removes a file |
//! | `/create?N`, `/directories?N`, `/symlinks?N`, `/links?N` | N of them in the first directory |
//! | `/hold?N` | a file of N bytes that is removed, and stays open |
//! | `/move?PATH`, `/link?PATH` | a file of the second directory gets a name in the first |
//! | `/list` | how many entries the first directory has |
//! | `/read?GUEST/PATH` | the text of a file in the directory that has that name |

mod filling;

use std::fmt::Debug;

use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags};
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, Method, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam, Scheme,
};
use wasip2::io::poll::poll;
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::IpAddressFamily;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp_create_socket::create_udp_socket;

wasip2::http::proxy::export!(Hostile);

struct Hostile;

impl wasip2::exports::http::incoming_handler::Guest for Hostile {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let count = query.parse().unwrap_or(0);
        let said = match path {
            "/ok" => "ok\n".to_owned(),
            "/fields" => take(count, fields),
            "/clones" => clones(count),
            "/authority" => take(1, || request_with(|made| made.set_authority(Some(&"a".repeat(count))))),
            "/method" => take(1, || request_with(|made| made.set_method(&Method::Other("A".repeat(count))))),
            "/paths" => {
                let path = format!("/{}", "p".repeat(60_000));
                take(count, || request_with(|made| made.set_path_with_query(Some(&path))))
            }
            "/bodies" => take(count, body),
            "/stdout" => {
                let stream = wasip2::cli::stdout::get_stdout();
                take(1, || stream.write(&vec![b'\n'; count]))
            }
            "/streams" => {
                let streams: Vec<_> = (0..count).map(|_| wasip2::cli::stdout::get_stdout()).collect();
                let permitted: Vec<_> =
                    streams.iter().map(|stream| stream.check_write().unwrap() as usize).collect();
                let mut streams = streams.iter().zip(&permitted);
                take(count, || {
                    let (stream, permitted) = streams.next().unwrap();
                    stream.write(&vec![b'x'; *permitted])
                })
            }
            "/lookup" => {
                let network = instance_network();
                take(1, || resolve_addresses(&network, &"n".repeat(count)))
            }
            "/host" => take(1, || fetch(&format!("{}.example", "h".repeat(count)))),
            "/error" => {
                let error = ErrorCode::InternalError(Some("\u{1b}[2J\nfalse line ".repeat(count / 16)));
                return ResponseOutparam::set(out, Err(error));
            }
            "/panic" => panic!("{}", "m".repeat(count)),
            "/tcp" => take(count, || create_tcp_socket(IpAddressFamily::Ipv4)),
            "/udp" => take(count, || create_udp_socket(IpAddressFamily::Ipv4)),
            "/files" => {
                let directory = first_directory();
                take(count, || open(&directory, "file", OpenFlags::empty(), DescriptorFlags::READ))
            }
            "/file-streams" => {
                let directory = first_directory();
                take(count, || {
                    let file = open(&directory, "file", OpenFlags::empty(), DescriptorFlags::READ)
                        .map_err(|error| format!("{error:?}"))?;
                    file.read_via_stream(0).map_err(|error| format!("{error:?}"))
                })
            }
            "/writes" => {
                let directory = first_directory();
                let file = open(&directory, "new", OpenFlags::CREATE, DescriptorFlags::WRITE).unwrap();
                let stream = file.write_via_stream(0).unwrap();
                take(1, || stream.write(&vec![b'x'; count]))
            }
            "/listings" => {
                let directory = first_directory();
                take(count, || directory.read_directory())
            }
            "/poll" => {
                let soon = subscribe_duration(1);
                format!("{}\n", poll(&vec![&soon; count]).len())
            }
            "/requests" => {
                let target = std::env::var("TARGET").unwrap_or_default();
                take(count, || fetch(&target))
            }
            "/open" => take(1, || open(&first_directory(), query, OpenFlags::empty(), DescriptorFlags::READ)),
            "/swap" => {
                let (from, to) = query.split_once('&').unwrap();
                let directory = first_directory();
                directory.rename_at(from, &directory, "swapped").unwrap();
                take(1, || directory.symlink_at(to, from))
            }
            "/change" => take(1, || first_directory().create_directory_at(query)),
            "/read" => read(query),
            _ => filling::answer(path, query).unwrap_or_else(|| "no such path\n".to_owned()),
        };
        answer(out, said.as_bytes());
    }
}

/// Takes so many of them, or as many as there are, and says so.
fn take<T, E: Debug>(count: usize, mut one: impl FnMut() -> Result<T, E>) -> String {
    let mut taken = Vec::new();
    while taken.len() < count {
        match one() {
            Ok(more) => taken.push(more),
            Err(error) => {
                let error = format!("{error:?}");
                return format!("{}\n{}\n", taken.len(), &error[..error.len().min(200)]);
            }
        }
    }
    format!("{}\n", taken.len())
}

fn fields() -> Result<Fields, ()> {
    let fields = Fields::new();
    fields.append("x-large", &vec![b'x'; 100 << 10]).map_err(|_| ())?;
    Ok(fields)
}

fn clones(count: usize) -> String {
    let fields = fields().unwrap();
    take(count, || {
        let clone = fields.clone();
        clone.append("x-more", b"x").map(|()| clone)
    })
}

fn request_with(set: impl FnOnce(&OutgoingRequest) -> Result<(), ()>) -> Result<OutgoingRequest, ()> {
    let request = OutgoingRequest::new(Fields::new());
    set(&request)?;
    Ok(request)
}

fn body() -> Result<impl Sized, String> {
    let request = OutgoingRequest::new(Fields::new());
    let body = request.body().map_err(|()| "no body")?;
    let stream = body.write().map_err(|()| "no stream")?;
    while let Ok(permitted @ 1..) = stream.check_write() {
        stream.write(&vec![b'x'; permitted as usize]).map_err(|error| format!("{error:?}"))?;
    }
    Ok((stream, body, request))
}

fn fetch(authority: &str) -> Result<impl Sized + use<>, ErrorCode> {
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request
        .set_authority(Some(authority))
        .map_err(|()| ErrorCode::InternalError(Some("not an authority".into())))?;
    request.set_path_with_query(Some("/")).unwrap();
    let future = outgoing_handler::handle(request, None)?;
    future.subscribe().block();
    match future.get() {
        Some(Ok(answered)) => answered.map(|response| (response, future)),
        _ => Err(ErrorCode::InternalError(None)),
    }
}

fn first_directory() -> Descriptor {
    get_directories().remove(0).0
}

fn open(
    directory: &Descriptor,
    path: &str,
    how: OpenFlags,
    flags: DescriptorFlags,
) -> Result<Descriptor, wasip2::filesystem::types::ErrorCode> {
    directory.open_at(PathFlags::SYMLINK_FOLLOW, path, how, flags)
}

fn read(path: &str) -> String {
    let (guest, path) = path.split_at(path[1..].find('/').unwrap() + 1);
    let Some((directory, _)) = get_directories().into_iter().find(|(_, name)| name == guest) else {
        return format!("no directory {guest}\n");
    };
    match open(&directory, &path[1..], OpenFlags::empty(), DescriptorFlags::READ) {
        Ok(file) => match file.read(1 << 16, 0) {
            Ok((text, _)) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("{error:?}\n"),
        },
        Err(error) => format!("{error:?}\n"),
    }
}

fn answer(out: ResponseOutparam, text: &[u8]) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    for piece in text.chunks(4096) {
        stream.blocking_write_and_flush(piece).unwrap();
    }
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}
