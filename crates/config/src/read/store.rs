//! `[store]`.

use super::folder_name;
use crate::formation::{Retention, StoreUrl};
use crate::postgres_url::PostgresUrl;
use crate::reader::{Item, Reading};
use crate::spelling::quoted;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Ten years: what is longer is a slip in the unit.
const KEEP: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(3_650 * 24);
const EXPECTED: &str = "\"sqlite:PATH\", \"postgres://USER:PASSWORD@HOST/DATABASE\" or \"memory:\"";
const KEEP_MAX: RangeInclusive<u64> = 0..=1_000_000_000;

/// The values of `[store]`.
#[derive(Default)]
pub(super) struct Store {
    /// `None` where the file gives none.
    pub(super) url: Option<StoreUrl>,
    pub(super) retention: Retention,
}

/// Reads `[store]` of the app of that name; `None` is the folder's.
pub(super) fn store(cx: &mut Reading<'_>, item: &Item<'_>, name: Option<&str>) -> Option<Store> {
    let mut table = item.table(cx, "a table such as [store]")?;
    let url = table.take("url").and_then(|item| {
        let url = item.text(cx, EXPECTED)?;
        let name = name.map_or_else(|| folder_name(cx.folder), str::to_owned);
        store_url(cx, &url, &name).map_err(|message| item.problem(cx, message)).ok()
    });
    let default = Retention::default();
    let keep_done = table.take("keep_done").and_then(|item| item.duration(cx, KEEP));
    let keep_done_max = table.take("keep_done_max").and_then(|item| item.whole(cx, KEEP_MAX));
    let keep_dead = table.take("keep_dead").and_then(|item| item.duration(cx, KEEP));
    let keep_dead_max = table.take("keep_dead_max").and_then(|item| item.whole(cx, KEEP_MAX));
    table.finish(cx);
    let retention = Retention {
        done_for: keep_done.unwrap_or(default.done_for),
        done_max: keep_done_max.unwrap_or(default.done_max),
        dead_for: keep_dead.unwrap_or(default.dead_for),
        dead_max: keep_dead_max.unwrap_or(default.dead_max),
    };
    Some(Store { url, retention })
}

/// The messages never repeat what comes after a scheme: a database's URL has its password in it.
fn store_url(cx: &Reading<'_>, url: &str, name: &str) -> Result<StoreUrl, String> {
    let expected = format!("expected {EXPECTED}");
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err(format!("found {}, {expected}", quoted(url)));
    };
    match scheme {
        "memory" if rest.is_empty() => Ok(StoreUrl::Memory),
        "memory" => Err("found a path after \"memory:\", expected \"memory:\" alone".to_owned()),
        "sqlite" if rest == ":memory:" => {
            Err(format!("found \"sqlite::memory:\", {expected}; write \"memory:\""))
        }
        "sqlite" if rest.is_empty() => {
            Err("found \"sqlite:\" without a path, expected \"sqlite:PATH\"".to_owned())
        }
        // Some libraries read sqlite://PATH as a relative path, others as a host: neither would be safe to
        // assume.
        "sqlite" if rest.starts_with("//") && !rest.starts_with("///") => {
            Err("found \"sqlite://\", expected \"sqlite:PATH\", without slashes before a relative path"
                .to_owned())
        }
        "sqlite" => Ok(StoreUrl::Sqlite(cx.absolute(rest))),
        "postgres" | "postgresql" => PostgresUrl::parse(url, name, cx.folder).map(StoreUrl::Postgres),
        "nats" => {
            Err(format!("found \"{scheme}://\", which is not supported yet by this version; {expected}"))
        }
        _ => Err(format!("found {}, {expected}", quoted(&format!("{scheme}:")))),
    }
}
