//! Arguments of `wasmhost deploy`, `rollback` and `releases`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::duration;
use crate::complete;

pub(crate) const DEPLOY_HELP: &str = "\
Examples:
  wasmhost deploy --dry-run      says what would change
  wasmhost deploy
  wasmhost deploy --timeout 30s  for components that are compiled already
  wasmhost deploy --canary 10%   gives it a tenth of requests and jobs first

The host reads the formation again and checks it whole. It compiles what
changed, runs the release steps, starts one instance of each changed type and,
where the type has `ready`, waits until it answers. Then it moves the type's
instances, a quarter at a time. Types that didn't change are not touched.
Whatever fails, the release that was live stays.

With --canary the release isn't made live. Types that take requests or jobs,
and change, have both versions: the new one gets that share of requests and of
workers' instances, until `wasmhost promote` or `wasmhost abort`. All else
that the release changes waits for `promote`.

Exits with 0 when the release is live or on canary (or nothing changed), 1 if
it failed. Ctrl-C ends the waiting alone (130): the deploy goes on in the host.";

pub(crate) const PROMOTE_HELP: &str = "\
Examples:
  wasmhost deploy --canary 10%   gives a new release a share of requests
  wasmhost promote               makes it live
  wasmhost abort                 or ends it

The release that is on canary gets all instances, a quarter at a time, as in a
deploy. If they die, the release that was live stays, and the canary ends.

Exits with 0 when the release is live, 1 if it failed or none is on canary.";

pub(crate) const ABORT_HELP: &str = "\
Examples:
  wasmhost abort

Ends a deploy, a rollback or a promotion that is under way: it fails, and the
release that was live stays. Otherwise it ends the release that is on canary.
The release that was live gets all requests and jobs at once. Calls that the
canary's instances have begun are finished. The release is `failed`.

Exits with 0 when it is done, 1 if there is nothing to abort or it was too late.";

pub(crate) const ROLLBACK_HELP: &str = "\
Examples:
  wasmhost rollback              back to the release before this one
  wasmhost rollback v5           back to that one, as `releases` lists it

The release's components were kept when it was deployed, so that it doesn't
matter what has become of their files. The rollback is a release of its own,
with the next number. It runs no release steps. The formation file stays as it
is, and `wasmhost run` doesn't bring it back before it, or a component, has
changed.";

pub(crate) const RELEASES_HELP: &str = "\
Examples:
  wasmhost releases
  wasmhost releases -n 3
  wasmhost releases show v7
  wasmhost releases show v7 --formation > formation.toml";

const SHOW_HELP: &str = "\
Examples:
  wasmhost releases show v7
  wasmhost releases show v7 --formation > formation.toml
  wasmhost releases show v7 --json | jq -r '.changes[]'";

#[derive(Args)]
pub(crate) struct Deploy {
    /// Say what would change, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Don't make it live: give it this share of requests and jobs, from 1% to 99%.
    #[arg(long, value_name = "SHARE")]
    pub(crate) canary: Option<Percent>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Args)]
pub(crate) struct Promote {
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Args)]
pub(crate) struct Abort {
    /// Print JSON: what happens, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Rollback {
    /// The release to go back to: `v5` or `5` [default: the one that was live before this one]
    #[arg(value_name = "RELEASE", add = complete::releases())]
    pub(crate) to: Option<Number>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

/// How somebody waits for a release.
#[derive(Args)]
pub(crate) struct Waiting {
    /// How long it may take; then it fails, and the release that was live stays.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Don't wait for the end: return when the release has its number.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Print JSON: what happens, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Releases {
    #[command(subcommand)]
    pub(crate) verb: Option<ReleasesVerb>,
    /// How many, the newest first.
    #[arg(short, long, value_name = "RELEASES", default_value_t = 20)]
    pub(crate) n: u32,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
pub(crate) enum ReleasesVerb {
    /// Show one: what it changed, its components, why it failed.
    #[command(after_help = SHOW_HELP)]
    Show(Show),
}

#[derive(Args)]
pub(crate) struct Show {
    /// The release: `v7` or `7`.
    #[arg(value_name = "RELEASE", add = complete::releases())]
    pub(crate) number: Number,
    /// Print the formation's text, and nothing else.
    #[arg(long, conflicts_with = "json")]
    pub(crate) formation: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A release's number, with a `v` before it or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number(pub(crate) u64);

impl FromStr for Number {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let number = digits.parse().ok().filter(|number| *number > 0 && !digits.starts_with('+'));
        number
            .map(Number)
            .ok_or("expected a release's number, such as v7 or 7; `wasmhost releases` lists them")
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// A share in percent, from 1 to 99, with the sign or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Percent(pub(crate) u64);

impl FromStr for Percent {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_suffix('%').unwrap_or(text);
        let percent = digits.parse().ok().filter(|percent| (1..=99).contains(percent));
        let percent = percent.filter(|_| !digits.starts_with('+'));
        percent.map(Percent).ok_or("expected a share from 1% to 99%, in whole percents, such as 10%")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_whole_percents() {
        for (text, percent) in [("10%", 10), ("10", 10), ("1%", 1), ("99", 99), ("05%", 5)] {
            assert_eq!(text.parse(), Ok(Percent(percent)), "{text}");
        }
        for text in ["", "%", "0", "0%", "100%", "-1%", "+5%", "0.5%", "10%%", "10 %", "1/10", "ten"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_release_is_named_by_its_number() {
        for text in ["v7", "V7", "7", "v07"] {
            assert_eq!(text.parse(), Ok(Number(7)), "{text}");
        }
        for text in ["", "v", "v0", "0", "-1", "+7", "v+7", "vv7", "seven", "7.0", "99999999999999999999"] {
            assert!(text.parse::<Number>().is_err(), "{text}");
        }
        assert_eq!(Number(7).to_string(), "v7");
    }
}
