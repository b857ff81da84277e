//! `wasmhost top`, driven in a terminal.

use crate::harness::tmux::Tmux;
use crate::harness::{Formation, Host, Load, eventually};

fn formation() -> Formation {
    Formation::web("count = 2").process("worker", "job-test", "queue = \"mail\"\ncount = 1").process(
        "clock",
        "tick-test",
        "schedule = \"@yearly\"",
    )
}

/// No line is wider than the terminal, and the page has a foot: it fits.
#[track_caller]
fn fits(screen: &[String], columns: usize, lines: usize) {
    assert!(screen.len() <= lines, "{screen:#?}");
    assert!(screen.iter().all(|line| line.chars().count() <= columns), "{screen:#?}");
    assert!(screen.iter().any(|line| line.starts_with("q end")), "{screen:#?}");
}

#[test]
fn types_are_seen_scaled_and_restarted_in_80_columns_and_24_lines() {
    let formation = formation();
    let host = Host::run(&formation);
    let load = Load::get(host.address(), 2, "/ok");
    let Some(top) = Tmux::start(&formation, 80, 24, "top") else { return };
    let screen = top.shows("web.2");
    fits(&screen, 80, 24);
    for text in ["web", "2/2", "worker", "clock", "web.1", "web.2"] {
        assert!(screen.iter().any(|line| line.contains(text)), "{text}: {screen:#?}");
    }
    // Figures come with the host's samples.
    eventually("requests are counted", || {
        let screen = top.screen();
        let web = screen.iter().find(|line| line.trim_start().starts_with("web "))?;
        web.contains("ms").then_some(()).or_else(|| web.contains("us").then_some(()))
    });
    load.stop();

    top.press(&["+"]);
    top.shows("web=3");
    top.shows("3/3");
    top.press(&["-", ""]);
    top.shows("web=2");
    top.press(&["s"]);
    top.shows("count of web:");
    top.press(&["4", "Enter"]);
    top.shows("web=4");
    eventually("the host has them", || (host.ps().number("web", "actual") == 4).then_some(()));

    top.press(&["Down", "Tab"]);
    top.shows("> INSTANCES OF worker");
    // It is selected when it is seen, which is a look later.
    top.shows("worker.1");
    top.press(&["r"]);
    top.shows("restart worker.1? (y, n)");
    top.press(&["n"]);
    top.press(&["r"]);
    top.shows("restart worker.1? (y, n)");
    top.press(&["y"]);
    top.shows("1 of worker.1 is being replaced");
    eventually("it was", || (host.ps().number("worker", "recycled") == 1).then_some(()));

    top.press(&["q"]);
    top.shows("exit 0");
    assert!(!top.screen().iter().any(|line| line.contains("INSTANCES OF")), "the screen is closed");
}

#[test]
fn a_queue_is_paused_and_resumed() {
    let formation = formation();
    let host = Host::run(&formation);
    let Some(top) = Tmux::start(&formation, 80, 24, "top") else { return };
    top.shows("INSTANCES OF web");
    top.press(&["u"]);
    top.shows("> QUEUES");
    fits(&top.shows("mail"), 80, 24);
    top.press(&["p"]);
    top.shows("mail is paused");
    host.enqueue("mail", "write:a");
    eventually("the job waits", || {
        let screen = top.screen();
        let mail = screen.iter().find(|line| line.trim_start().starts_with("mail "))?;
        (mail.contains('1') && mail.contains("paused")).then_some(())
    });
    top.press(&["p"]);
    top.shows("mail is running");
    top.press(&["?"]);
    top.shows("pause or resume the queue");
    top.press(&["Escape"]);
    top.press(&["C-c"]);
    top.shows("exit 0");
}

#[test]
fn a_wide_terminal_shows_all_three_tables_and_charts() {
    let formation = formation();
    let _host = Host::run(&formation);
    let Some(top) = Tmux::start(&formation, 80, 24, "top") else { return };
    top.shows("INSTANCES OF web");
    top.resize(200, 60);
    let screen = top.shows("CALLS/S, ");
    fits(&screen, 200, 60);
    for text in ["TRIGGER", "> TYPES", "  INSTANCES OF web", "  QUEUES", "mail"] {
        assert!(screen.iter().any(|line| line.contains(text)), "{text}: {screen:#?}");
    }
    // A smaller one than is meant is no reason to fail.
    top.resize(20, 5);
    top.resize(80, 24);
    fits(&top.shows("INSTANCES OF web"), 80, 24);
}

#[test]
fn a_host_that_goes_away_is_found_again() {
    let formation = Formation::web("");
    let host = Host::run(&formation);
    let Some(top) = Tmux::start(&formation, 80, 24, "top") else { return };
    top.shows("INSTANCES OF web");
    host.stop().done();
    top.shows("NOT ANSWERING");
    let host = Host::run(&formation);
    let pid = format!("pid {}", host.pid());
    let screen = top.shows(&pid);
    assert!(screen.iter().any(|line| line.contains("web.1")), "{screen:#?}");
    eventually("it answers", || {
        (!top.screen().iter().any(|line| line.contains("NOT ANSWERING"))).then_some(())
    });
    top.press(&["q"]);
    top.shows("exit 0");
}

#[test]
fn without_a_terminal_it_is_refused_with_what_to_do() {
    let formation = Formation::web("");
    let host = Host::run(&formation);
    host.cli(["top"]).failed(2, "`wasmhost ps --json` is for programs");
    host.stop().done();
    formation.cli(["top"]).failed(5, "no host runs");
}
