//! The terminal: a screen of its own and keys one by one, until it is dropped, also by a panic.

use std::io::{IsTerminal, Stdout, stdin, stdout};

use crossterm::cursor::{Hide, Show};
use crossterm::event::{Event, EventStream};
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use futures_util::StreamExt;
use ratatui::backend::CrosstermBackend;
use ratatui::{Frame, Terminal as Drawn};

use crate::exit::{Exit, Failed};

/// See the module.
pub(super) struct Terminal {
    drawn: Drawn<CrosstermBackend<Stdout>>,
    events: EventStream,
}

impl Terminal {
    pub(super) fn open() -> Result<Terminal, Failed> {
        if !stdout().is_terminal() || !stdin().is_terminal() {
            let message = "`top` needs a terminal; `wasmhost ps --json` is for programs";
            return Err(Failed::new(Exit::Usage, message.to_owned()));
        }
        enable_raw_mode()?;
        // From here on it is closed, whatever happens.
        let opened = execute!(stdout(), EnterAlternateScreen, Hide);
        let drawn = opened.and_then(|()| Drawn::new(CrosstermBackend::new(stdout())));
        match drawn {
            Ok(drawn) => Ok(Terminal { drawn, events: EventStream::new() }),
            Err(err) => {
                close();
                Err(err.into())
            }
        }
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> Result<(), Failed> {
        self.drawn.draw(draw)?;
        Ok(())
    }

    /// A key, or a new size.
    pub(super) async fn event(&mut self) -> Result<Event, Failed> {
        match self.events.next().await {
            Some(event) => Ok(event?),
            None => Err(Failed::new(Exit::Failed, "the keyboard is gone".to_owned())),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        close();
    }
}

/// As it was before. Nobody is left to be told of an error.
fn close() {
    let _ = execute!(stdout(), Show, LeaveAlternateScreen);
    let _ = disable_raw_mode();
}
