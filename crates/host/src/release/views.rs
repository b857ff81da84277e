//! Releases as people and programs see them, by what the store has of them.

use std::path::Path;

use wasmhost_config::{Changes, Source, restore};
use wasmhost_store::releases::{RELEASES_MAX, Release, ReleaseState};

use super::{OnCanary, change_lines};
use crate::admin::api::{ComponentView, ReleaseDetail, ReleaseView};

/// A release as a list has it. `before` is the one that was live before it, and `known` are the numbers of those that are
/// kept, the newest first.
pub(crate) fn view(
    release: &Release,
    before: Option<&Release>,
    known: &[u64],
    canary: Option<OnCanary>,
    file: &Path,
) -> ReleaseView {
    // To the store it is pending.
    let canary = canary.filter(|canary| canary.release == release.number);
    let canary = canary.filter(|_| release.state == ReleaseState::Pending);
    ReleaseView {
        number: release.number,
        state: canary.map_or(release.state.name(), |_| "canary").to_owned(),
        canary_percent: canary.map(|canary| canary.share.percent()),
        author: release.author.clone(),
        created_at: release.created_at.to_string(),
        live_at: release.live_at.map(|time| time.to_string()),
        why: release.why.clone(),
        changed: before.map(|before| changed(before, release, file)).unwrap_or_default(),
        gone: before.is_none().then(|| gone_before(release.number, known)).flatten(),
        components: components(release),
    }
}

/// All that is known of a release.
pub(crate) fn detail(
    release: Release,
    before: Option<&Release>,
    known: &[u64],
    canary: Option<OnCanary>,
    file: &Path,
) -> ReleaseDetail {
    let changes = before.map(|before| match changes(before, &release, file) {
        Some(changes) => change_lines(&changes),
        None => by_components(before, &release).iter().map(|name| format!("{name}: component")).collect(),
    });
    ReleaseDetail {
        before: before.map(|before| before.number),
        changes: changes.unwrap_or_default(),
        release: view(&release, before, known, canary, file),
        formation: release.formation,
    }
}

pub(crate) fn components(release: &Release) -> Vec<ComponentView> {
    let components = release.components.iter().map(|component| ComponentView {
        process: component.process.clone(),
        digest: component.digest.clone(),
        bytes: component.bytes,
        file: component.file.clone(),
    });
    components.collect()
}

/// A release's changes to the one before it. None where one of them can't be read any more: a variable that it names
/// isn't set, say.
fn changes(before: &Release, release: &Release, file: &Path) -> Option<Changes> {
    let formation = |release: &Release| {
        let source = Source { text: release.formation.clone(), dotenv: release.dotenv.clone() };
        restore(file, &source).ok()
    };
    let has_changed = |process: &str| digest(before, process) != digest(release, process);
    Some(Changes::between(&formation(before)?, &formation(release)?, &has_changed))
}

/// The release before this one, where it isn't kept any more.
fn gone_before(number: u64, known: &[u64]) -> Option<u64> {
    // Those below the last one of a list that is full may be kept, too.
    let is_whole = known.len() < usize::try_from(RELEASES_MAX).unwrap_or(usize::MAX);
    let least = if is_whole { 1 } else { known.last().copied().unwrap_or(1) };
    (least..number).rev().find(|number| !known.contains(number))
}

fn digest<'a>(release: &'a Release, process: &str) -> Option<&'a str> {
    let component = release.components.iter().find(|component| component.process == process);
    component.map(|component| component.digest.as_str())
}

/// The types that a release changed, and `formation` for what belongs to none.
fn changed(before: &Release, release: &Release, file: &Path) -> Vec<String> {
    let Some(Changes { refused, types, http, others }) = changes(before, release, file) else {
        return by_components(before, release);
    };
    let of_none = [refused, http, others].iter().any(|lines| !lines.is_empty());
    let of_none = of_none.then(|| "formation".to_owned());
    types.into_iter().map(|kind| kind.process).chain(of_none).collect()
}

/// The types whose component is another one, or that are in one of the two alone.
fn by_components(before: &Release, release: &Release) -> Vec<String> {
    let differs = |process: &&str| digest(before, process) != digest(release, process);
    let names = |release: &'_ Release| -> Vec<String> {
        let names = release.components.iter().map(|component| component.process.as_str());
        names.filter(differs).map(str::to_owned).collect()
    };
    let mut names_of_both = names(release);
    names_of_both.extend(names(before));
    names_of_both.sort();
    names_of_both.dedup();
    names_of_both
}

/// The text for one who asks for a release that isn't there: it names the nearest ones on either side.
pub(crate) fn no_release(number: u64, known: &[u64]) -> String {
    let below = known.iter().filter(|known| **known < number).max();
    let above = known.iter().filter(|known| **known > number).min();
    let nearest: Vec<_> = below.into_iter().chain(above).map(|number| format!("v{number}")).collect();
    match nearest.as_slice() {
        [] => format!("there is no release v{number}, and no other"),
        [one] => format!("there is no release v{number}; the nearest is {one}"),
        [..] => format!("there is no release v{number}; the nearest are {}", nearest.join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use wasmhost_store::Timestamp;
    use wasmhost_store::releases::ReleaseComponent;

    use super::*;

    #[test]
    fn who_asks_for_a_release_that_is_not_there_learns_of_the_nearest() {
        assert_eq!(no_release(9, &[7, 6, 5]), "there is no release v9; the nearest is v7");
        assert_eq!(no_release(3, &[7, 5, 1]), "there is no release v3; the nearest are v1 and v5");
        assert_eq!(no_release(1, &[]), "there is no release v1, and no other");
    }

    fn release(number: u64, formation: &str, digests: &[(&str, &str)]) -> Release {
        let components = digests.iter().map(|(process, digest)| ReleaseComponent {
            process: (*process).to_owned(),
            digest: (*digest).to_owned(),
            file: "/srv/web.wasm".into(),
            bytes: 8,
        });
        Release {
            number,
            created_at: Timestamp::now(),
            live_at: Some(Timestamp::now()),
            author: "deploy".into(),
            of_file: true,
            state: ReleaseState::Replaced,
            why: None,
            formation: formation.to_owned(),
            dotenv: None,
            fingerprint: String::new(),
            components: components.collect(),
        }
    }

    #[test]
    fn a_release_tells_what_it_changed_in_the_one_that_was_live_before() {
        let web = "name = \"shop\"\n[process.web]\ncomponent = \"web.wasm\"\n";
        let one = release(1, web, &[("web", "aa")]);
        let two = release(2, &format!("{web}memory = \"64MiB\"\n"), &[("web", "bb")]);
        let four = release(4, &web.replace("shop", "store"), &[("web", "bb")]);
        let file = Path::new("/srv/formation.toml");
        assert_eq!(changed(&one, &two, file), ["web"]);
        assert_eq!(changed(&two, &four, file), ["web", "formation"]);
        let lines = change_lines(&changes(&one, &two, file).unwrap());
        assert!(lines.iter().any(|line| line.starts_with("web: component")), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("web: memory")), "{lines:?}");
        // A variable that nobody has set any more.
        let lost = release(5, &web.replace("web.wasm", "${WASMHOST_TEST_NOT_SET}.wasm"), &[("web", "dd")]);
        assert!(changes(&four, &lost, file).is_none());
        assert_eq!(changed(&four, &lost, file), ["web"]);
        assert_eq!(
            by_components(
                &release(6, "", &[("a", "1"), ("b", "2")]),
                &release(7, "", &[("b", "3"), ("c", "4")])
            ),
            ["a", "b", "c"]
        );
    }

    #[test]
    fn a_release_whose_predecessor_is_gone_says_so() {
        assert_eq!(gone_before(1, &[1]), None, "it is the first one");
        assert_eq!(gone_before(3, &[3, 2, 1]), None, "those before it were never live");
        assert_eq!(gone_before(4, &[6, 5, 4]), Some(3));
        assert_eq!(gone_before(6, &[6, 5, 2]), Some(4));
        let full: Vec<u64> = (2..2 + u64::from(RELEASES_MAX)).rev().collect();
        assert_eq!(gone_before(2, &full), None, "it isn't known");
        let release = |number| release(number, "", &[]);
        let (one, file) = (release(1), Path::new("/srv/formation.toml"));
        assert_eq!(view(&release(3), None, &[3], None, file).gone, Some(2));
        assert_eq!(view(&release(3), Some(&one), &[3, 1], None, file).gone, None);
    }
}
