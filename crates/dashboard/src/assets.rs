//! The page's files. They are in the binary as they are in the repository: nothing builds them.

/// A file of the page.
pub struct Asset {
    /// The path at which it is served.
    pub path: &'static str,
    /// Its media type.
    pub media_type: &'static str,
    /// Its content.
    pub text: &'static str,
    /// Whether one who isn't in may have it: the page that says so needs it.
    pub is_public: bool,
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const ICON: &str = "image/svg+xml";

/// The page that one who comes by a link gets, with `PAGE_KEY` for the key.
pub(crate) const ENTERED: &str = include_str!("../assets/entered.html");

/// The page on which one shows the token.
pub(crate) const LOGIN: &str = include_str!("../assets/login.html");

/// The page that says why there is none, with `TITLE` and `DETAIL` for the reason.
pub(crate) const REFUSED: &str = include_str!("../assets/refused.html");

macro_rules! assets {
    ($($path:literal, $media_type:expr, $file:literal, $is_public:expr;)*) => {
        /// All files that have a path.
        pub const ALL: &[Asset] = &[$(
            Asset {
                path: $path,
                media_type: $media_type,
                text: include_str!(concat!("../assets/", $file)),
                is_public: $is_public,
            },
        )*];
    };
}

assets! {
    "/", HTML, "index.html", false;
    "/app.js", SCRIPT, "app.js", false;
    "/api.js", SCRIPT, "api.js", false;
    "/charts.js", SCRIPT, "charts.js", false;
    "/dialogs.js", SCRIPT, "dialogs.js", false;
    "/dom.js", SCRIPT, "dom.js", false;
    "/format.js", SCRIPT, "format.js", false;
    "/pages/events.js", SCRIPT, "pages/events.js", false;
    "/pages/formation.js", SCRIPT, "pages/formation.js", false;
    "/pages/job.js", SCRIPT, "pages/job.js", false;
    "/pages/jobs.js", SCRIPT, "pages/jobs.js", false;
    "/pages/logs.js", SCRIPT, "pages/logs.js", false;
    "/pages/queues.js", SCRIPT, "pages/queues.js", false;
    "/pages/releases.js", SCRIPT, "pages/releases.js", false;
    "/pages/schedules.js", SCRIPT, "pages/schedules.js", false;
    "/pages/type.js", SCRIPT, "pages/type.js", false;
    "/entered.js", SCRIPT, "entered.js", true;
    "/key.js", SCRIPT, "key.js", true;
    "/login.js", SCRIPT, "login.js", true;
    "/style.css", STYLE, "style.css", true;
    "/parts.css", STYLE, "parts.css", true;
    "/lists.css", STYLE, "lists.css", false;
    "/icon.svg", ICON, "icon.svg", true;
}

/// The file at this path.
pub(crate) fn find(path: &str) -> Option<&'static Asset> {
    ALL.iter().find(|asset| asset.path == path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_script_asks_for_files_that_there_are() {
        for asset in ALL.iter().filter(|asset| asset.media_type == SCRIPT) {
            let folder = asset.path.rsplit_once('/').unwrap().0;
            for import in
                asset.text.lines().filter(|line| line.starts_with("import ") || line.starts_with("} from"))
            {
                let name = import.split('"').nth(1).unwrap();
                let path = match name.strip_prefix("../") {
                    Some(above) => format!("/{above}"),
                    None => format!("{folder}/{}", name.strip_prefix("./").unwrap()),
                };
                assert!(find(&path).is_some(), "{} imports {path}", asset.path);
            }
        }
    }

    #[test]
    fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
        let pages = [ENTERED, LOGIN, REFUSED].into_iter().chain(ALL.iter().map(|asset| asset.text));
        for text in pages {
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                " style=\"",
                "onclick=\"",
                "https://",
            ] {
                assert!(!text.contains(forbidden), "{forbidden} in {:?}", &text[..60]);
            }
            let links = text.matches("http://").count();
            assert_eq!(links, text.matches("http://www.w3.org/").count(), "{:?}", &text[..60]);
        }
    }

    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/assets");
        let names = |folder: &str| -> BTreeSet<String> {
            let entries = std::fs::read_dir(folder).unwrap().flatten();
            let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
            files.map(|entry| entry.file_name().into_string().unwrap()).collect()
        };
        let served = |prefix: &str| -> BTreeSet<String> {
            let paths = ALL.iter().filter_map(|asset| asset.path.strip_prefix(prefix));
            paths.filter(|name| !name.is_empty() && !name.contains('/')).map(str::to_owned).collect()
        };
        let mut files = names(folder);
        for name in ["index.html", "entered.html", "login.html", "refused.html"] {
            assert!(files.remove(name), "{name}");
        }
        assert_eq!(files, served("/"));
        assert_eq!(names(&format!("{folder}/pages")), served("/pages/"));
    }
}
