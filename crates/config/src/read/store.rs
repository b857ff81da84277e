//! `[store] url`.

use crate::formation::StoreUrl;
use crate::reader::{Item, Reading};
use crate::spelling::quoted;

/// Reads `[store]`.
pub(super) fn store(cx: &mut Reading<'_>, item: &Item<'_>) -> Option<StoreUrl> {
    let mut table = item.table(cx, "a table such as [store]")?;
    let url = table.take("url").and_then(|item| {
        let url = item.text(cx, "\"sqlite:PATH\" or \"memory:\"")?;
        store_url(cx, &url).map_err(|message| item.problem(cx, message)).ok()
    });
    table.finish(cx);
    url
}

/// The messages never repeat what comes after a scheme: a database's URL has its password in it.
fn store_url(cx: &Reading<'_>, url: &str) -> Result<StoreUrl, String> {
    let expected = "expected \"sqlite:PATH\" or \"memory:\"";
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
        "postgres" | "postgresql" | "nats" => {
            Err(format!("found \"{scheme}://\", which is not supported yet by this version; {expected}"))
        }
        _ => Err(format!("found {}, {expected}", quoted(&format!("{scheme}:")))),
    }
}
