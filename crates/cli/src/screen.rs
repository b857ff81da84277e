//! A terminal that is drawn again and again, as `top` does: on a screen of its own, which is gone at the end, each time in
//! one write and over what was there before, so that nothing flickers. q or Ctrl-C ends it.

use std::io::{IsTerminal, Read};
use std::time::Duration;

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::exit::{Exit, Failed};
use crate::print;
use crate::table::width;

/// The terminal's other screen, without a cursor; and the way back.
const OPEN: &str = "\u{1b}[?1049h\u{1b}[?25l";
const CLOSE: &str = "\u{1b}[?25h\u{1b}[?1049l";

/// How high a terminal is that doesn't say it.
const HEIGHT_DEFAULT: usize = 24;

/// Keys that wait to be looked at.
const KEYS_MAX: usize = 16;

/// Ctrl-C and Ctrl-D, as they come from a terminal that makes no signals of them.
const INTERRUPT: u8 = 3;
const END: u8 = 4;

/// See the module. Closed when it is dropped.
pub(crate) struct Screen {
    /// How the keyboard was before, where there is one.
    before: Option<Termios>,
    keys: mpsc::Receiver<u8>,
    resized: Signal,
    /// The signals that end it.
    ends: [Signal; 3],
}

/// The outcome of a wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// It is time to draw again.
    Again,
    /// A person has seen enough.
    End,
}

impl Screen {
    /// Opens it, where standard output is a terminal. `instead` completes what a program can do.
    pub(crate) fn open(instead: &str) -> Result<Screen, Failed> {
        if !std::io::stdout().is_terminal() {
            let message = format!("standard output is no terminal, which this needs; {instead}");
            return Err(Failed::new(Exit::Usage, message));
        }
        let [interrupt, terminate, hang_up] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        let ends = [interrupt?, terminate?, hang_up?];
        let resized = signal(SignalKind::window_change())?;
        let (before, keys) = keyboard();
        print::raw(OPEN);
        Ok(Screen { before, keys, resized, ends })
    }

    /// Shows this text from its top, as much of it as there is room for.
    pub(crate) fn draw(&self, text: &str) {
        print::raw(&frame(&print::shown_lines(text), width(), height()));
    }

    /// Waits for this long, or until a person does something.
    pub(crate) async fn wait(&mut self, time: Duration) -> Then {
        let [interrupt, terminate, hang_up] = &mut self.ends;
        let over = tokio::time::sleep(time);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return Then::Again,
                _ = self.resized.recv() => return Then::Again,
                _ = interrupt.recv() => return Then::End,
                _ = terminate.recv() => return Then::End,
                _ = hang_up.recv() => return Then::End,
                Some(key) = self.keys.recv() => match key {
                    b'q' | b'Q' | INTERRUPT | END => return Then::End,
                    _ => {}
                },
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
        print::raw(CLOSE);
    }
}

/// Has the keyboard give each key at once, and show none; and the keys. Without a keyboard there are none.
fn keyboard() -> (Option<Termios>, mpsc::Receiver<u8>) {
    let (sender, keys) = mpsc::channel(KEYS_MAX);
    let stdin = std::io::stdin();
    let Some(before) = stdin.is_terminal().then(|| tcgetattr(&stdin).ok()).flatten() else {
        return (None, keys);
    };
    let mut now = before.clone();
    // A signal of the keyboard's would leave the terminal as it is now.
    now.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
    now.special_codes[SpecialCodeIndex::VMIN] = 1;
    now.special_codes[SpecialCodeIndex::VTIME] = 0;
    if tcsetattr(&stdin, OptionalActions::Now, &now).is_err() {
        return (None, keys);
    }
    // It goes with the process: nothing can end its read.
    std::thread::spawn(move || {
        for key in std::io::stdin().lock().bytes() {
            let Ok(key) = key else { return };
            if sender.blocking_send(key).is_err() {
                return;
            }
        }
    });
    (Some(before), keys)
}

fn height() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    size.map(|size| usize::from(size.ws_row)).filter(|height| *height > 0).unwrap_or(HEIGHT_DEFAULT)
}

/// Output that shows this text: each line over the one that was there, and nothing below the last.
fn frame(text: &str, width: usize, height: usize) -> String {
    let lines: Vec<&str> = text.trim_end_matches('\n').split('\n').collect();
    let has_room = lines.len() <= height;
    let shown = if has_room { lines.len() } else { height.saturating_sub(1) };
    let mut frame = "\u{1b}[H".to_owned();
    for (row, line) in lines[..shown].iter().enumerate() {
        if row > 0 {
            frame.push_str("\r\n");
        }
        frame.extend(line.chars().take(width));
        frame.push_str("\u{1b}[K");
    }
    if !has_room {
        frame.push_str(&format!("\r\n... {} more lines\u{1b}[K", lines.len() - shown));
    }
    frame.push_str("\u{1b}[J");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_drawn_over_the_one_before() {
        assert_eq!(frame("one\ntwo\n", 80, 24), "\u{1b}[Hone\u{1b}[K\r\ntwo\u{1b}[K\u{1b}[J");
        assert_eq!(frame("löng", 3, 24), "\u{1b}[Hlön\u{1b}[K\u{1b}[J");
    }

    #[test]
    fn a_frame_is_never_higher_than_the_terminal() {
        let text = "line\n".repeat(30);
        let rows = |height| frame(&text, 80, height).matches("\r\n").count() + 1;
        assert_eq!((rows(40), rows(30), rows(24)), (30, 30, 24));
        assert!(frame(&text, 80, 24).contains("... 7 more lines"));
    }
}
