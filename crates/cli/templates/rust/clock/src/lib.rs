//! The clock process: it is called at each time of its schedule.

use wasmhost_guest::tick::Tick;

wasmhost_guest::tick!(tick);

/// A tick isn't repeated: what must not be missed is put on a queue, for a worker.
fn tick(tick: Tick) -> Result<(), String> {
    println!("{}", report(tick.nominal_ms));
    Ok(())
}

fn report(nominal_ms: u64) -> String {
    format!("tick {} s", nominal_ms / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_in_seconds() {
        assert_eq!(report(90_000), "tick 90 s");
    }
}
