//! Opens the link in the person's browser.
//!
//! Other users of the machine can read a program's arguments, and the link is a key. So the browser is given a file that only
//! this user can read, which leads to the link.

use std::io::Write;
use std::process::{Command, Stdio};

use tempfile::NamedTempFile;

use crate::print;

/// The file that the browser was given. It goes when this is dropped.
pub(super) struct Opening {
    _file: NamedTempFile,
}

/// Opens the link, where there is a display. Where that fails the person has the link in the terminal.
pub(super) fn open(link: &str) -> Option<Opening> {
    let program = program()?;
    match start(program, link) {
        Ok(opening) => Some(opening),
        Err(err) => {
            print::note(format_args!("{program} can't be started ({err}): open the link by hand"));
            None
        }
    }
}

/// The program that opens files as the person has set it up.
fn program() -> Option<&'static str> {
    if cfg!(target_os = "macos") {
        return Some("open");
    }
    let has = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    (has("DISPLAY") || has("WAYLAND_DISPLAY")).then_some("xdg-open")
}

fn start(program: &str, link: &str) -> std::io::Result<Opening> {
    let mut file = tempfile::Builder::new().prefix("wasmhost-dashboard-").suffix(".html").tempfile()?;
    file.write_all(page(link).as_bytes())?;
    let mut command = Command::new(program);
    command.arg(file.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    // Nobody waits for it, but it is not to stay as a zombie.
    std::thread::spawn(move || child.wait());
    Ok(Opening { _file: file })
}

fn page(link: &str) -> String {
    format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>wasmhost dashboard</title>\n\
         <meta http-equiv=\"refresh\" content=\"0; url={link}\">\n<a href=\"{link}\">To the dashboard</a>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn the_file_leads_to_the_link_and_is_for_this_user_alone() {
        use std::os::unix::fs::PermissionsExt;

        let link = "http://127.0.0.1:1/open?key=ab";
        let opening = start("true", link).unwrap();
        let path = opening._file.path().to_owned();
        assert!(std::fs::read_to_string(&path).unwrap().contains("url=http://127.0.0.1:1/open?key=ab\""));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(opening);
        assert!(!path.exists());
    }
}
