//! `wasmhost top`: types, their instances and the queues, live, with keys to scale, restart and pause.

mod acts;
mod app;
mod draw;
mod terminal;

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use wasmhost_host::admin::api::{OverviewView, QueuesView};

use crate::client::Client;
use crate::exit::{Exit, Failed, Outcome};
use app::{App, Then};
use terminal::Terminal;

/// How often the host is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a look may take. A host that takes longer doesn't answer.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// How things stand at one moment.
struct Look {
    overview: OverviewView,
    queues: QueuesView,
}

/// Until a person has seen enough. A host that goes away is waited for.
pub(crate) async fn top(client: Client) -> Outcome {
    let client = Arc::new(client);
    // An error is told before there is a screen.
    let first = look(client.clone(), None, 0).await?;
    let mut app = App::new();
    app.saw(first.overview, first.queues);
    let mut terminal = Terminal::open()?;
    let [mut interrupt, mut terminate, mut hang_up] = {
        let [interrupt, terminate, hang_up] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        [interrupt?, terminate?, hang_up?]
    };
    let mut looking: Option<JoinHandle<Result<Look, Failed>>> = None;
    let mut acting: Option<JoinHandle<Result<String, Failed>>> = None;
    // It had no instances: no type was selected yet.
    let mut next_look = Instant::now();
    loop {
        terminal.draw(|frame| draw::draw(frame, &mut app))?;
        tokio::select! {
            event = terminal.event() => match app.press(event?) {
                Then::End => return Ok(Exit::Done),
                Then::Nothing => {}
                Then::Look => next_look = Instant::now(),
                // One at a time: the last line says which.
                Then::Act(act) if acting.is_none() => {
                    app.began(&act);
                    acting = Some(tokio::spawn(acts::carry_out(client.clone(), act)));
                }
                Then::Act(_) => {}
            },
            looked = ended(&mut looking) => {
                next_look = Instant::now() + LOOK_EVERY;
                match looked {
                    Ok(look) => app.saw(look.overview, look.queues),
                    Err(failed) => app.lost(&failed.message),
                }
            }
            acted = ended(&mut acting) => {
                app.ended(acted.map_err(|failed| failed.message));
                next_look = Instant::now();
            }
            () = sleep_until(next_look), if looking.is_none() => {
                let (process, after) = app.wants();
                looking = Some(tokio::spawn(look(client.clone(), process, after)));
            }
            _ = interrupt.recv() => return Ok(Exit::Done),
            _ = terminate.recv() => return Ok(Exit::Done),
            _ = hang_up.recv() => return Ok(Exit::Done),
        }
    }
}

/// Waits for a task, for ever while there is none.
async fn ended<T>(task: &mut Option<JoinHandle<Result<T, Failed>>>) -> Result<T, Failed> {
    let Some(running) = task else { return std::future::pending().await };
    let ended = running.await;
    *task = None;
    ended.unwrap_or_else(|err| Err(Failed::new(Exit::Failed, err.to_string())))
}

/// The instances of one type alone are asked for: of a thousand types nobody sees the others.
async fn look(client: Arc<Client>, process: Option<String>, after: u64) -> Result<Look, Failed> {
    let of_type = process.map(|process| format!("&type={process}")).unwrap_or_default();
    let asked = async {
        let overview = client.get(&format!("/v1/overview?after={after}{of_type}")).await?;
        // A host that starts has none yet.
        let queues = client.get("/v1/queues").await.unwrap_or(QueuesView { queues: vec![] });
        Ok(Look { overview, queues })
    };
    let late = |_| Err(Failed::new(Exit::Failed, format!("the host doesn't answer within {LOOK_MAX:?}")));
    tokio::time::timeout(LOOK_MAX, asked).await.unwrap_or_else(late)
}
