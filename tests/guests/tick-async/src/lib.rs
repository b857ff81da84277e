//! A clock of WASI 0.3 whose instances take one tick each: during the first one they say that they take no more. It ends
//! when there is a file /out/go.

use std::fs;

use wasmhost_guest::tick::Tick;
use wasmhost_guest::wasip3::clocks::monotonic_clock;
use wasmhost_guest::wasip3::wit_bindgen::rt::async_support::backpressure_inc;

wasmhost_guest::async_tick!(handle);

async fn handle(tick: Tick) -> Result<(), String> {
    backpressure_inc();
    println!("began {}", tick.nominal_ms);
    while fs::metadata("/out/go").is_err() {
        monotonic_clock::wait_for(5_000_000).await;
    }
    println!("ended {}", tick.nominal_ms);
    Ok(())
}
