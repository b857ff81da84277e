//! A terminal of a size, with keys and a screen, which tmux (a Debian package) keeps.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::{Formation, command, eventually};

/// A terminal in which a verb runs. Closed when it is dropped.
pub(crate) struct Tmux {
    socket: PathBuf,
}

impl Tmux {
    /// None, told loudly, where there is no tmux.
    pub(crate) fn start(formation: &Formation, columns: u16, lines: u16, verb: &str) -> Option<Tmux> {
        if Command::new("tmux").arg("-V").stdout(Stdio::null()).status().is_err() {
            eprintln!("LEFT OUT: there is no tmux on this machine (Debian: apt-get install tmux)");
            return None;
        }
        let binary = command(formation.folder(), [""; 0], &[]);
        let program = binary.get_program().to_str().unwrap();
        let tmux = Tmux { socket: formation.path("tmux") };
        let (columns, lines) = (columns.to_string(), lines.to_string());
        // The shell stays, so that the end can be seen.
        let line = format!("{program} {verb}; echo \"exit $?\"; exec sleep 1000");
        let size = ["-x", &columns, "-y", &lines];
        let started = tmux.tell(&[&["new-session", "-d"][..], &size, &["sh", "-c", &line]].concat());
        assert!(started.status.success(), "{started:?}");
        Some(tmux)
    }

    fn tell(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket).args(["-f", "/dev/null"]).args(arguments);
        command.current_dir(self.socket.parent().unwrap()).env_remove("TMUX").env_remove("WASMHOST_FILE");
        // The page has characters that a terminal has to know.
        command.env("LC_ALL", "C.UTF-8").env("TERM", "xterm-256color").stdin(Stdio::null());
        command.output().unwrap()
    }

    /// Presses keys, by tmux's names of them.
    pub(crate) fn press(&self, keys: &[&str]) {
        let told = self.tell(&[&["send-keys"], keys].concat());
        assert!(told.status.success(), "{told:?}");
    }

    /// The lines on the screen.
    pub(crate) fn screen(&self) -> Vec<String> {
        let shown = self.tell(&["capture-pane", "-p"]);
        String::from_utf8_lossy(&shown.stdout).lines().map(str::to_owned).collect()
    }

    /// Waits until the screen has this.
    #[track_caller]
    pub(crate) fn shows(&self, text: &str) -> Vec<String> {
        let mut last = Vec::new();
        let until = std::time::Instant::now() + super::PATIENCE;
        while std::time::Instant::now() < until {
            last = self.screen();
            if last.iter().any(|line| line.contains(text)) {
                return last;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the screen never showed {text:?}:\n{}", last.join("\n"));
    }

    pub(crate) fn resize(&self, columns: u16, lines: u16) {
        let (columns, lines) = (columns.to_string(), lines.to_string());
        let told = self.tell(&["resize-window", "-x", &columns, "-y", &lines]);
        assert!(told.status.success(), "{told:?}");
        eventually("it has the size", || {
            let size = self.tell(&["display-message", "-p", "#{window_width}x#{window_height}"]);
            (String::from_utf8_lossy(&size.stdout).trim() == format!("{columns}x{lines}")).then_some(())
        });
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.tell(&["kill-server"]);
    }
}
