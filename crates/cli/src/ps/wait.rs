//! `wasmhost ps --wait`: a script that has started a host goes on when it serves.

use std::time::Duration;

use serde_json::Value;
use wasmhost_host::admin::api::{CountView, FormationView};

use super::look;
use crate::args::Ps;
use crate::client::Client;
use crate::exit::{Exit, Failed};
use crate::scale;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A request that a host answers as soon as it has started, or with the reason why it doesn't.
const ASKED_OF_STARTED: &str = "/v1/queues";

/// The host, as it was seen last.
enum Seen {
    /// It isn't there yet. The reason is for a person.
    NoHost(Failed),
    /// With its present work.
    Starting(String),
    /// These types have fewer instances than they should.
    Lacks(Vec<CountView>),
}

/// How things stand, as soon as the host has started and all types, or the one that was named, have their instances. A host
/// that isn't there yet is waited for; one that was there and is gone isn't.
pub(super) async fn until_up(client: &Client, ps: &Ps) -> Result<FormationView, Failed> {
    let mut seen = None;
    match tokio::time::timeout(ps.timeout, wait(client, ps, &mut seen)).await {
        Ok(ended) => ended,
        Err(_) => Err(late(seen, ps.timeout.as_secs_f64())),
    }
}

async fn wait(client: &Client, ps: &Ps, seen: &mut Option<Seen>) -> Result<FormationView, Failed> {
    loop {
        client.refuse_other()?;
        match look(client, ps).await {
            Ok(FormationView { starting: Some(starting), .. }) => {
                *seen = Some(Seen::Starting(starting));
                let _: Value = client.get(ASKED_OF_STARTED).await?;
                continue;
            }
            Ok(view) => {
                let lacking = lacking(&view);
                if lacking.is_empty() {
                    return Ok(view);
                }
                *seen = Some(Seen::Lacks(lacking));
            }
            Err(failed) if failed.exit == Exit::NoHost && matches!(seen, None | Some(Seen::NoHost(_))) => {
                *seen = Some(Seen::NoHost(failed));
            }
            Err(failed) => return Err(failed),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Types that have fewer instances than they should.
fn lacking(view: &FormationView) -> Vec<CountView> {
    let mut counts = CountView::of(&view.types);
    counts.retain(|count| count.actual < count.desired);
    counts
}

fn late(seen: Option<Seen>, waited_s: f64) -> Failed {
    let message = match seen {
        None => format!("the host has not answered after {waited_s} s"),
        Some(Seen::NoHost(failed)) => {
            return Failed { message: format!("after {waited_s} s {}", failed.message), ..failed };
        }
        Some(Seen::Starting(what)) => format!("after {waited_s} s the host was still starting ({what})"),
        Some(Seen::Lacks(counts)) => scale::lacking(&counts, waited_s),
    };
    Failed::new(Exit::Failed, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lacks_at_the_end_is_told_with_an_exit_code_of_its_own() {
        let told = |seen| {
            let failed = late(seen, 1.5);
            (failed.exit, failed.message)
        };
        let no_host = Seen::NoHost(Failed::new(Exit::NoHost, "no host runs it"));
        assert_eq!(told(Some(no_host)), (Exit::NoHost, "after 1.5 s no host runs it".into()));
        assert_eq!(told(None), (Exit::Failed, "the host has not answered after 1.5 s".into()));
        let starting = Seen::Starting("compiling components: 1 of 2".into());
        let message = "after 1.5 s the host was still starting (compiling components: 1 of 2)";
        assert_eq!(told(Some(starting)), (Exit::Failed, message.into()));
        let web = CountView { process: "web".into(), desired: 4, actual: 3, note: Some("trapped".into()) };
        let message = "after 1.5 s web has 3 of 4 instances (trapped); the host goes on trying";
        assert_eq!(told(Some(Seen::Lacks(vec![web]))), (Exit::Failed, message.into()));
    }
}
