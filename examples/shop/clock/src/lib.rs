//! The shop's clock: each minute it counts the receipts.

use std::{fs, io};

use wasmhost_guest::tick::Tick;

wasmhost_guest::tick!(write_report);

fn write_report(tick: Tick) -> io::Result<()> {
    let mut receipts = 0;
    let mut last = None;
    for file in fs::read_dir("/data/receipts")? {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        let Some(id) = name.strip_suffix(".txt") else { continue };
        receipts += 1;
        let written = file.metadata()?.modified()?;
        last = last.max(Some((written, id.to_string())));
    }
    let last = last.map_or("none".to_string(), |(_, id)| id);

    // By rename, so that nobody reads half a report.
    fs::write("/data/report.draft", format!("receipts {receipts}\nlast {last}\n"))?;
    fs::rename("/data/report.draft", "/data/report.txt")?;
    println!("{receipts} receipts at {} s", tick.nominal_ms / 1000);
    Ok(())
}
