//! Ticks: what a process type with a schedule is called with.

use std::fmt::Display;
use std::time::{Duration, SystemTime};

use crate::bindings::ticker::wasmhost::clock::types;

/// Makes this component a clock: `handler`, a `fn(Tick) -> Result<(), E>`, is called at each time of the schedule.
/// `E` is anything that can be displayed.
///
/// A tick is recorded before its call and never repeated. Work that must not be missed belongs on a queue: enqueue
/// it here and let a worker do it.
///
/// ```no_run
/// use wasmhost_guest::queue;
/// use wasmhost_guest::tick::Tick;
///
/// wasmhost_guest::tick!(handle);
///
/// fn handle(tick: Tick) -> Result<(), queue::Error> {
///     queue::enqueue("default", format!("report for {}", tick.nominal_ms))?;
///     Ok(())
/// }
/// ```
#[macro_export]
macro_rules! tick {
    ($handler:path) => {
        const _: () = {
            struct Ticker;

            impl $crate::bindings::ticker::exports::wasmhost::clock::handler::Guest for Ticker {
                fn handle(
                    tick: $crate::bindings::ticker::wasmhost::clock::types::Tick,
                ) -> ::core::result::Result<(), ::std::string::String> {
                    $crate::tick::call($handler, tick)
                }
            }

    $crate::bindings::ticker::export_ticker!(Ticker with_types_in $crate::bindings::ticker);
        };
    };
}

/// Makes this component a clock of WASI 0.3: `handler`, an `async fn(Tick) -> Result<(), E>`, is called at each time
/// of the schedule. The rules are those of [`tick!`](crate::tick!).
///
/// ```no_run
/// use wasmhost_guest::tick::Tick;
/// use wasmhost_guest::wasip3::clocks::monotonic_clock;
///
/// wasmhost_guest::async_tick!(handle);
///
/// async fn handle(tick: Tick) -> Result<(), String> {
///     monotonic_clock::wait_for(1_000_000_000).await; // nanoseconds
///     println!("a second after {}", tick.nominal_ms);
///     Ok(())
/// }
/// ```
#[cfg(feature = "async")]
#[macro_export]
macro_rules! async_tick {
    ($handler:path) => {
        const _: () = {
            struct Ticker;

            impl $crate::bindings::async_ticker::exports::wasmhost::clock::async_handler::Guest for Ticker {
                async fn handle(
                    tick: $crate::bindings::ticker::wasmhost::clock::types::Tick,
                ) -> ::core::result::Result<(), ::std::string::String> {
                    $crate::tick::call_async($handler, tick).await
                }
            }

    $crate::bindings::async_ticker::export_async_ticker!(Ticker with_types_in $crate::bindings::async_ticker);
        };
    };
}

/// One time of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tick {
    /// The process type whose schedule this is.
    pub schedule: String,
    /// The time that the schedule names, in milliseconds since 1970-01-01T00:00:00Z. The call may start later.
    pub nominal_ms: u64,
    /// True where a person asked for it (`wasmhost tick clock`).
    pub manual: bool,
}

impl Tick {
    /// The time that the schedule names.
    #[must_use]
    pub fn nominal(&self) -> SystemTime {
        // Out of range only some 500 million years from now; no reason to panic then either.
        SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_millis(self.nominal_ms))
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl From<types::Tick> for Tick {
    fn from(tick: types::Tick) -> Self {
        let types::Tick { schedule, nominal_ms, manual } = tick;
        Self { schedule, nominal_ms, manual }
    }
}

/// The function that [`tick!`](crate::tick!) exports.
#[doc(hidden)]
pub fn call<E: Display>(handler: fn(Tick) -> Result<(), E>, tick: types::Tick) -> Result<(), String> {
    handler(tick.into()).map_err(|error| error.to_string())
}

/// The function that [`async_tick!`](crate::async_tick!) exports.
#[cfg(feature = "async")]
#[doc(hidden)]
pub async fn call_async<E: Display>(
    handler: impl AsyncFnOnce(Tick) -> Result<(), E>,
    tick: types::Tick,
) -> Result<(), String> {
    handler(tick.into()).await.map_err(|error| error.to_string())
}
