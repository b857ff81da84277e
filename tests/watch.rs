//! `wasmhost ps --watch` on a terminal of its own, which `script` makes.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Formation, Host, Lines, command};

/// A terminal of 80 columns and 24 lines, in which a verb runs.
struct Terminal {
    child: Child,
    shown: Lines,
}

impl Terminal {
    fn start(formation: &Formation, line: &str) -> Terminal {
        let binary = command(formation.folder(), [""; 0], &[]);
        let program = binary.get_program().to_str().unwrap();
        let run = format!("sh -c 'echo pid $$; exec {program} {line}'");
        let inside = format!("stty rows 24 cols 80; {run}; echo \"exit $?\"; stty -a | grep -c -- -icanon");
        let mut child = Command::new("script")
            .args(["-qfec", &inside, "/dev/null"])
            .current_dir(formation.folder())
            .env_remove("WASMHOST_FILE")
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let shown = Lines::read(child.stdout.take().unwrap());
        Terminal { child, shown }
    }

    fn press(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// It has ended well, with the terminal as it was before.
    fn ended(self) {
        let exit = self.shown.wait_for("exit ");
        assert!(exit.contains("\u{1b}[?25h\u{1b}[?1049lexit 0"), "the screen is closed: {exit:?}");
        let lines = self.shown.wait_until("the keyboard", |lines| {
            let at = lines.iter().position(|line| line.contains("exit 0"))?;
            lines.get(at + 1).cloned()
        });
        assert_eq!(lines.trim(), "0", "keys are shown and waited for again");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_screen_is_drawn_over_until_a_key_ends_it() {
    let formation = Formation::web("count = 2");
    let host = Host::run(&formation);
    for end in ["q", "\u{3}"] {
        let mut terminal = Terminal::start(&formation, "ps --watch");
        terminal.shown.wait_for("web.2");
        host.cli(["scale", "web=3"]).done();
        terminal.shown.wait_for("web.3");
        host.cli(["scale", "web=2"]).done();
        // Keys that mean nothing do nothing.
        terminal.press("x");
        terminal.press(end);
        let shown = terminal.shown.clone();
        terminal.ended();
        let text = shown.text();
        assert_eq!(text.matches("\u{1b}[?1049h").count(), 1, "one screen");
        assert!(text.matches("\u{1b}[H").count() >= 2, "it was drawn again: {text:?}");
        assert!(!text.contains("\u{1b}[2J"), "nothing is cleared, which would flicker: {text:?}");
    }
}

#[test]
fn a_screen_is_closed_where_the_host_goes_away() {
    let formation = Formation::web("");
    let host = Host::run(&formation);
    let terminal = Terminal::start(&formation, "ps web -w");
    terminal.shown.wait_for("web.1");
    host.stop().done();
    let line = terminal.shown.wait_for("error:");
    assert!(line.contains("\u{1b}[?1049l"), "the screen is closed before the error is told: {line:?}");
    terminal.shown.wait_for("exit ");
}

#[test]
fn queues_are_watched_in_the_same_way() {
    let formation = Formation::new().process("worker", "job-test", "queue = \"q\"");
    let _host = Host::run(&formation);
    let mut terminal = Terminal::start(&formation, "jobs watch");
    terminal.shown.wait_for("QUEUE");
    terminal.press("q");
    terminal.ended();
}

#[test]
fn without_a_terminal_watching_is_refused_with_what_to_do() {
    let formation = Formation::web("");
    let host = Host::run(&formation);
    host.cli(["ps", "--watch"]).failed(2, "`wasmhost ps --json` is for programs");
    host.cli(["ps", "--watch", "--json"]).failed(2, "cannot be used with");
}

#[test]
fn a_signal_ends_a_screen_as_a_key_does() {
    let formation = Formation::web("");
    let _host = Host::run(&formation);
    for signal in [Signal::INT, Signal::TERM] {
        let terminal = Terminal::start(&formation, "ps --watch");
        let line = terminal.shown.wait_for("pid ");
        terminal.shown.wait_for("web.1");
        let pid = line.trim().trim_start_matches("pid ").parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        terminal.ended();
    }
}
