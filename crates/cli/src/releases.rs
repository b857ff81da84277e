//! `wasmhost releases`

use std::fmt::Write as _;
use std::io::IsTerminal;

use wasmhost_host::StoredReleases;
use wasmhost_host::admin::api::{ComponentView, ReleaseDetail, ReleaseView, ReleasesView, Timestamp};

use crate::args::releases::{Releases, ReleasesVerb, Show};
use crate::client::{Client, NoAnswer};
use crate::exit::{Exit, Failed, Outcome};
use crate::print;
use crate::table::{one_line, short, size, table};

/// How much of a reason a list shows, in characters.
const WHY_CHARS: usize = 200;

/// Digits of a digest that a person compares.
const DIGEST_CHARS: usize = 12;

pub(crate) async fn releases(client: &Client, releases: &Releases) -> Outcome {
    if let Some(ReleasesVerb::Show(wanted)) = &releases.verb {
        return show(client, wanted).await;
    }
    let asked = client.try_get::<ReleasesView>(&format!("/v1/releases?n={}", releases.n)).await;
    let listed = match asked {
        Ok(ReleasesView { releases }) => releases,
        Err(none) => without_host(client, none, |stored| stored.list(releases.n)).await?,
    };
    if releases.json {
        for release in &listed {
            print::json(release)?;
        }
        return Ok(Exit::Done);
    }
    let now = Timestamp::now();
    let head = ["RELEASE", "STATE", "WHEN", "AUTHOR", "CHANGES", "WHY"];
    print::text(&table(&head, listed.iter().map(|release| row(release, now))));
    Ok(Exit::Done)
}

/// Looks in the store, where no host runs.
async fn without_host<T>(
    client: &Client,
    none: NoAnswer,
    look: impl FnOnce(&StoredReleases) -> Result<T, String>,
) -> Result<T, Failed> {
    let failed = Failed::from(none);
    let Some(file) = client.file().filter(|_| failed.exit == Exit::NoHost) else { return Err(failed) };
    if client.is_there().await {
        return Err(failed);
    }
    let refused = |why: String| file.failed(Exit::Failed, why);
    let Some(stored) = client.stored_releases().map_err(refused)? else { return Err(failed) };
    let found = look(&stored).map_err(refused)?;
    let file = file.path().display();
    print::note(format_args!("no host runs {file}: this is what its store has"));
    Ok(found)
}

fn row(release: &ReleaseView, now: Timestamp) -> Vec<String> {
    vec![
        format!("v{}", release.number),
        state(release),
        ago(&release.created_at, now),
        release.author.clone(),
        match release.gone {
            Some(gone) => format!("(v{gone} is gone)"),
            None => release.changed.join(" "),
        },
        release.why.as_deref().map(|why| one_line(why, WHY_CHARS)).unwrap_or_default(),
    ]
}

/// `live`, `canary (10%)`
fn state(release: &ReleaseView) -> String {
    match release.canary_percent {
        Some(percent) => format!("{} ({percent}%)", release.state),
        None => release.state.clone(),
    }
}

/// `5m7s ago`, or the text itself if it is no time.
fn ago(time: &str, now: Timestamp) -> String {
    time.parse()
        .map_or_else(|_| time.to_owned(), |time| format!("{} ago", short(now.since(time).as_secs_f64())))
}

async fn show(client: &Client, show: &Show) -> Outcome {
    let asked = client.try_get::<ReleaseDetail>(&format!("/v1/releases/{}", show.number.0)).await;
    let detail = match asked {
        Ok(detail) => detail,
        Err(none) => without_host(client, none, |stored| stored.detail(show.number.0)).await?,
    };
    if show.json {
        print::pretty_json(&detail)?;
    } else if show.formation && std::io::stdout().is_terminal() {
        print::text(&detail.formation);
    } else if show.formation {
        // For a file: as it was written.
        print::raw(&detail.formation);
    } else {
        print::text(&render(&detail));
    }
    Ok(Exit::Done)
}

fn render(detail: &ReleaseDetail) -> String {
    let release = &detail.release;
    let mut text = format!("v{}  {}\n", release.number, state(release));
    let mut add = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            let _ = writeln!(text, "{name:<9}{}", value.replace('\n', "\n         "));
        }
    };
    add("author", Some(&release.author));
    add("created", Some(&release.created_at));
    add("live", release.live_at.as_deref());
    add("why", release.why.as_deref());
    text.push('\n');
    match (detail.changes.is_empty(), detail.before) {
        (_, None) => {
            if let Some(gone) = release.gone {
                let _ = writeln!(
                    text,
                    "it isn't known what it changed: v{gone}, the one before it, isn't kept any more\n"
                );
            }
        }
        (true, Some(before)) => text += &format!("nothing changed since v{before}\n\n"),
        (false, Some(before)) => {
            text += &format!("changed since v{before}:\n");
            detail.changes.iter().for_each(|line| text += &format!("  {line}\n"));
            text.push('\n');
        }
    }
    text + &table(&["TYPE", "DIGEST", "SIZE", "FILE"], release.components.iter().map(component_row))
}

fn component_row(component: &ComponentView) -> Vec<String> {
    let digest = component.digest.get(..DIGEST_CHARS).unwrap_or(&component.digest);
    vec![component.process.clone(), digest.to_owned(), size(component.bytes), component.file.clone()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(number: u64, state: &str, author: &str, why: Option<&str>) -> ReleaseView {
        ReleaseView {
            number,
            state: state.into(),
            canary_percent: None,
            author: author.into(),
            created_at: "2026-11-28T08:00:00Z".into(),
            live_at: why.is_none().then(|| "2026-11-28T08:00:02Z".into()),
            why: why.map(str::to_owned),
            changed: vec!["web".into(), "worker".into()],
            gone: None,
            components: vec![ComponentView {
                process: "web".into(),
                digest: "3f2a91c45e".repeat(6) + "0000",
                bytes: 71_680,
                file: "/srv/shop/web.wasm".into(),
            }],
        }
    }

    #[test]
    fn a_release_is_a_row() {
        let now = "2026-11-28T08:05:07Z".parse().unwrap();
        assert_eq!(
            row(&release(8, "live", "rollback to v6", None), now),
            ["v8", "live", "5m7s ago", "rollback to v6", "web worker", ""]
        );
        let canary = ReleaseView { canary_percent: Some(10), ..release(8, "canary", "deploy", None) };
        assert_eq!(row(&canary, now)[1], "canary (10%)");
        let first = ReleaseView { changed: vec![], gone: Some(7), ..release(8, "live", "deploy", None) };
        assert_eq!(row(&first, now)[4], "(v7 is gone)");
        let failed = release(7, "failed", "deploy", Some("web.1 trapped\n  at main"));
        assert_eq!(row(&failed, now)[5], "web.1 trapped");
    }

    #[test]
    fn one_release_is_told_whole() {
        let mut detail = ReleaseDetail {
            release: release(7, "failed", "deploy", Some("web.1 trapped\nat main")),
            before: Some(6),
            changes: vec!["web: memory 128MiB -> 256MiB".into()],
            formation: String::new(),
        };
        assert_eq!(
            render(&detail),
            "v7  failed\n\
             author   deploy\n\
             created  2026-11-28T08:00:00Z\n\
             why      web.1 trapped\n         at main\n\n\
             changed since v6:\n  web: memory 128MiB -> 256MiB\n\n\
             TYPE  DIGEST        SIZE     FILE\n\
             web   3f2a91c45e3f  70.0KiB  /srv/shop/web.wasm\n"
        );
        detail.before = None;
        assert!(!render(&detail).contains("changed"));
        detail.release.gone = Some(6);
        assert!(render(&detail).contains("\nit isn't known what it changed: v6, the one before it, isn't"));
    }
}
