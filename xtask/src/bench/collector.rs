//! A collector that takes all traces, and does nothing with them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::OnceLock;

use anyhow::Result;

/// Its address. It begins with the first one who asks, and ends with this program.
pub(super) fn address() -> Result<String> {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    if let Some(address) = ADDRESS.get() {
        return Ok(address.clone());
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // One that breaks off is made again.
            std::thread::spawn(move || drop(take(stream)));
        }
    });
    Ok(ADDRESS.get_or_init(|| address).clone())
}

fn take(stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    let mut length = 0;
    while reader.read_line(&mut line)? > 0 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
        if line == "\r\n" {
            std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
            reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        }
        line.clear();
    }
    Ok(())
}
