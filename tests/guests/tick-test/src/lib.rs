//! A clock that appends a line to /out/ticks at each tick: the nominal time in milliseconds, `manual` or
//! `scheduled`, and its process type.

use std::fs::OpenOptions;
use std::io::{self, Write};

use wasmhost_guest::tick::Tick;

wasmhost_guest::tick!(handle);

fn handle(tick: Tick) -> io::Result<()> {
    let how = if tick.manual { "manual" } else { "scheduled" };
    let mut file = OpenOptions::new().create(true).append(true).open("/out/ticks")?;
    file.write_all(format!("{} {how} {}\n", tick.nominal_ms, tick.schedule).as_bytes())
}
