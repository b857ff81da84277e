//! The paths that add to the first directory.

use std::cell::RefCell;

use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{
    Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags, filesystem_error_code,
};
use wasip2::io::streams::{OutputStream, StreamError};

use crate::{first_directory, open, take};

thread_local! {
    /// Files that stay open for as long as the instance lives.
    static HELD: RefCell<Vec<Descriptor>> = const { RefCell::new(Vec::new()) };
}

const PIECE: usize = 4096;

/// The answer, where the path is one of these.
pub fn answer(path: &str, query: &str) -> Option<String> {
    let count: usize = query.parse().unwrap_or(0);
    let directory = first_directory();
    Some(match path {
        "/append" => {
            let stream = file("new").append_via_stream().unwrap();
            take(count, || blocking(stream.blocking_write_and_flush(&[b'x'; PIECE])))
        }
        "/overwrite" => take(count, || {
            let file =
                open(&directory, "again", OpenFlags::CREATE | OpenFlags::TRUNCATE, DescriptorFlags::WRITE)?;
            let stream = file.write_via_stream(0)?;
            blocking(stream.blocking_write_and_flush(&[b'x'; PIECE]))
        }),
        "/zeroes" => {
            let stream = file("new").write_via_stream(0).unwrap();
            take(count, || blocking(stream.blocking_write_zeroes_and_flush(PIECE as u64)))
        }
        "/later" => {
            let stream = file("new").write_via_stream(0).unwrap();
            take(count, || blocking(write_later(&stream)))
        }
        "/write-at" => take(1, || file("new").write(b"x", count as u64)),
        "/size" => take(1, || file("new").set_size(count as u64)),
        "/truncate" => take(1, || open(&directory, query, OpenFlags::TRUNCATE, DescriptorFlags::WRITE)),
        "/create" => numbered(count, |name| {
            open(&directory, &format!("file{name}"), OpenFlags::CREATE, DescriptorFlags::WRITE).map(drop)
        }),
        "/directories" => numbered(count, |name| directory.create_directory_at(&format!("dir{name}"))),
        "/symlinks" => numbered(count, |name| directory.symlink_at("new", &format!("symlink{name}"))),
        "/links" => {
            drop(file("new"));
            numbered(count, |name| {
                directory.link_at(PathFlags::empty(), "new", &directory, &format!("link{name}"))
            })
        }
        "/unlink" => take(1, || directory.unlink_file_at(query)),
        "/hold" => take(1, || {
            let file = open(&directory, "held", OpenFlags::CREATE, DescriptorFlags::WRITE)?;
            file.set_size(count as u64)?;
            directory.unlink_file_at("held")?;
            HELD.with_borrow_mut(|held| held.push(file));
            Ok::<_, ErrorCode>(())
        }),
        "/move" => take(1, || {
            let directories = get_directories();
            directories[1].0.rename_at(query, &directories[0].0, query)
        }),
        "/link" => take(1, || {
            let directories = get_directories();
            directories[1].0.link_at(PathFlags::empty(), query, &directories[0].0, query)
        }),
        "/list" => {
            let entries = directory.read_directory().unwrap();
            let mut count = 0;
            while let Some(_entry) = entries.read_directory_entry().unwrap() {
                count += 1;
            }
            format!("{count}\n")
        }
        _ => return None,
    })
}

fn file(name: &str) -> Descriptor {
    open(&first_directory(), name, OpenFlags::CREATE, DescriptorFlags::WRITE).unwrap()
}

fn numbered(count: usize, mut one: impl FnMut(usize) -> Result<(), ErrorCode>) -> String {
    let mut number = 0;
    take(count, || {
        number += 1;
        one(number)
    })
}

/// A write that doesn't wait, then one that waits for it.
fn write_later(stream: &OutputStream) -> Result<(), StreamError> {
    while stream.check_write()? < PIECE as u64 {
        stream.subscribe().block();
    }
    stream.write(&[b'x'; PIECE])?;
    stream.blocking_flush()
}

/// The file system's word of an error.
fn blocking(result: Result<(), StreamError>) -> Result<(), ErrorCode> {
    result.map_err(|error| match error {
        StreamError::LastOperationFailed(error) => filesystem_error_code(&error).unwrap(),
        StreamError::Closed => panic!("the stream is closed"),
    })
}
