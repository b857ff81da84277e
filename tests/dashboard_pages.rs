//! The dashboard's pages, driven in a real browser as a person would.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::dashboard::Dashboard;
use crate::harness::browser::Browser;
use crate::harness::{Formation, Host, compile_ahead, eventually, repository};

/// Keys without a character, as WebDriver names them.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

/// The pages that every formation has.
const PAGES: [&str; 8] =
    ["formation", "types/web", "queues", "jobs", "schedules", "releases", "logs", "events"];

/// A dashboard in a browser that has come by its link.
struct Page {
    browser: Browser,
    dashboard: Dashboard,
}

impl Page {
    fn open(formation: &Formation) -> Option<Page> {
        let browser = Browser::start(1280, 900)?;
        let dashboard = Dashboard::start(formation);
        browser.go(&dashboard.link);
        browser.until("document.querySelector('#nav a[aria-current=page]')");
        assert_eq!(
            browser.url(),
            format!("http://{}/", dashboard.address),
            "the key doesn't stay in the address"
        );
        Some(Page { browser, dashboard })
    }

    /// Goes to a page, and waits until it is there.
    #[track_caller]
    fn go(&self, page: &str) {
        self.browser.run(&format!("location.hash = {}", json!(format!("#/{page}"))));
        self.browser.until(&format!(
            "location.hash === {} && document.querySelector('main h1')",
            json!(format!("#/{page}"))
        ));
    }

    /// Types into a field, in place of what is there.
    #[track_caller]
    fn enter(&self, selector: &str, text: &str) {
        let field = json!(selector);
        self.browser.until(&format!("document.querySelector({field})"));
        self.browser
            .run(&format!("const field = document.querySelector({field}); field.focus(); field.select();"));
        self.browser.keys(&format!("{text}{ENTER}"));
    }

    /// Nothing is wrong with the page as it is shown.
    #[track_caller]
    fn is_sound(&self, what: &str) {
        let wrong = self.browser.run(include_str!("harness/page_check.js"));
        assert_eq!(wrong, json!([]), "{what}");
    }

    /// The browser has asked nobody else, and has nothing to complain about.
    #[track_caller]
    fn is_by_itself(&self) {
        let own = format!("http://{}/", self.dashboard.address);
        let requests = self.browser.requests();
        assert!(requests.iter().any(|url| url.starts_with(&own)), "{requests:?}");
        // The browser's own parts have addresses of their own: that of its first page, say.
        let is_own =
            |url: &&String| [own.as_str(), "data:", "chrome"].iter().any(|begin| url.starts_with(begin));
        let others: Vec<_> = requests.iter().filter(|url| !is_own(url)).collect();
        assert!(others.is_empty(), "{others:?}");
        let complaints = self.browser.complaints();
        assert!(complaints.is_empty(), "{complaints:?}");
    }
}

/// A formation with every kind of type.
fn shop() -> Formation {
    Formation::web("count = 2").process("worker", "job-test", "queue = \"mail\"\nattempts = 1").process(
        "clock",
        "tick-test",
        "schedule = \"@yearly\"",
    )
}

#[test]
fn a_type_is_scaled_by_mouse_and_by_keys_and_says_how_its_last_instance_died() {
    let formation = shop();
    let host = Host::run(&formation);
    let Some(page) = Page::open(&formation) else { return };
    let Page { browser, .. } = &page;
    browser.sees("2 serving");
    browser.press("One instance of web more");
    browser.sees("3 serving");
    assert_eq!(host.ps().number("web", "actual"), 3);
    page.enter("[data-process=web] input", "5");
    browser.sees("5 serving");
    browser.press("Back to the file's count of web, 2");
    browser.sees("2 serving");

    // By keys alone: the first leads past the navigation.
    browser.run("document.activeElement.blur()");
    browser.go(&format!("http://{}/", page.dashboard.address));
    browser.until("document.querySelector('[data-process=web] .step')");
    browser.keys(TAB);
    browser.until("document.activeElement.id === 'skip'");
    browser.keys(ENTER);
    browser.until("document.activeElement.id === 'main'");
    let focus =
        "return document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent";
    let reached = (0..20).find(|_| {
        browser.keys(TAB);
        browser.run(focus) == "One instance of web more"
    });
    assert!(reached.is_some(), "it can't be reached: {}", browser.run(focus));
    browser.keys(ENTER);
    browser.sees("3 serving");

    // None at all is asked about.
    page.enter("[data-process=web] input", "0");
    browser.press("Leave it");
    browser.until("!document.querySelector('dialog') && document.querySelector('[data-process=web] input').value === '3'");
    page.enter("[data-process=web] input", "0");
    browser.press("Stop all");
    browser.until("document.querySelector('[data-process=web] .state').textContent.includes('none')");
    browser.press("Back to the file's count of web, 2");
    browser.until("document.querySelector('[data-process=web] .state').textContent.includes('2 serving')");

    host.get("/trap");
    page.go("types/web");
    browser.sees("How the last one died");
    browser.sees("trap");
    browser.press("Restart web.2");
    browser.press("Restart");
    eventually("it is replaced", || (host.ps().number("web", "recycled") == 1).then_some(()));
    page.is_by_itself();
}

#[test]
fn a_queue_is_paused_and_a_dead_job_is_retried_cancelled_and_discarded() {
    let formation = shop();
    let host = Host::run(&formation);
    let id = host.enqueue("mail", "bury:no such address");
    let Some(page) = Page::open(&formation) else { return };
    let Page { browser, .. } = &page;
    page.go("queues");
    browser.until("document.querySelector('[data-queue=mail] .states .bad')?.textContent.includes('1 dead')");
    browser.press("Pause mail");
    browser.until("document.querySelector('[data-queue=mail] .state')?.textContent.includes('paused')");
    browser.click("[data-queue=mail] .states .bad a");
    browser.until(&format!("document.querySelector('main a[href=\"#/job/{id}\"]')"));
    browser.sees("no such address");
    browser.press(&format!("#{id}"));
    browser.sees("bury:no such address");
    let state = |name: &str| format!("document.querySelector('.card .state')?.textContent === '{name}'");
    browser.until(&state("dead"));
    browser.press("Retry");
    browser.until(&state("available"));
    browser.press("Cancel");
    browser.until(&state("cancelled"));
    browser.press("Discard");
    browser.until("document.querySelector('dialog')");
    browser.click("dialog button.danger");
    browser.sees("There is no such job");

    // Many at once, and by what they are looked for.
    host.cli(["enqueue", "mail", "ok", "--unique", "ann"]).done();
    let other = host.enqueue("mail", "ok");
    page.go("jobs");
    browser.until("document.querySelectorAll('tbody tr').length === 2");
    page.enter("input[type=search]", "ann");
    browser.until("document.querySelectorAll('tbody tr').length === 1");
    browser.press("Discard all");
    browser.until("document.querySelector('dialog')");
    browser.click("dialog button.danger");
    browser.sees("There are no such jobs");
    page.enter("input.short", &other.to_string());
    browser.sees(&format!("Job {other}"));
    page.go("queues");
    browser.press("Resume mail");
    eventually("the job is done", || {
        let job = host.cli(["jobs", "show", &other.to_string(), "--json"]).done();
        let job: Value = serde_json::from_str(&job).unwrap();
        (job["state"] == "done").then_some(())
    });
    page.is_by_itself();
}

#[test]
fn lines_are_followed_and_a_host_that_is_lost_is_found_again() {
    let formation = shop();
    let host = Host::run(&formation);
    let Some(page) = Page::open(&formation) else { return };
    let Page { browser, .. } = &page;
    page.go("logs?target=worker");
    browser.sees("Following");
    host.enqueue("mail", "print:the first line");
    browser.sees("the first line");
    page.go("events?kind=count");
    browser.sees("Following");
    host.cli(["scale", "web=3"]).done();
    browser.sees("2 → 3");

    page.go("formation");
    browser.sees("3 serving");
    host.stop().done();
    browser.sees("The host is lost");
    browser.until("document.body.classList.contains('stale')");
    page.go("logs?target=worker");
    let host = Host::run(&formation);
    browser.until("document.querySelector('#banner').hidden && !document.body.classList.contains('stale')");
    browser.sees("Following");
    host.enqueue("mail", "print:a line of the next host");
    browser.sees("a line of the next host");
}

#[test]
fn texts_of_guests_are_texts_and_nothing_else() {
    let formation = shop();
    let host = Host::run(&formation);
    let Some(page) = Page::open(&formation) else { return };
    let Page { browser, .. } = &page;
    let script = "<img src=x onerror=\"window.hit=1\"><script>window.hit=1</script>";
    let lines = [
        format!("print:{script}"),
        "print:\u{202e}txet \u{2066}x\u{1b}[31mred\u{1b}[0m\u{1b}]0;title\u{7} end".to_owned(),
        format!("print:{}", "long ".repeat(200_000)),
        format!("bury:{script}\u{202e}\u{7}"),
    ];
    let id = host.enqueue_from_input("mail", &lines.join("\n"));
    page.go("logs?target=worker");
    browser.sees(script);
    browser.sees("\\u{202e}txet \\u{2066}xred\\u{1b}]0;title\\u{7} end");
    browser.sees("Show all");
    page.go(&format!("job/{id}"));
    browser.sees("Show all");
    browser.sees(&format!("{script}\\u{{202e}}\\u{{7}}"));
    browser.click("pre .foreign button");
    browser.until("document.querySelector('dialog pre')?.textContent.length >= 100000");
    browser.until("[...document.querySelectorAll('dialog button')].some((one) => one.textContent.startsWith('Show more'))");
    browser.press("Close");
    page.go("jobs");
    browser.sees(&format!("{script}\\u{{202e}}\\u{{7}}"));
    page.go("queues");
    browser.sees("1 dead");
    // Names that a person could have followed here.
    page.go("logs?target=%3Cscript%3Ealert(1)%3C%2Fscript%3E");
    browser.until("document.querySelector('main select')?.textContent.includes('<script>')");
    page.go("types/%3Cb%3Ebold%3C%2Fb%3E");
    browser.sees("<b>bold</b>");
    let strange = "return [window.hit ?? null, document.querySelectorAll('script').length, document.querySelectorAll('main img, main b').length]";
    assert_eq!(browser.run(strange), json!([null, 1, 0]));
    page.is_by_itself();
}

#[test]
fn a_release_is_rolled_back_and_a_schedule_is_run() {
    compile_ahead("two");
    let formation = Formation::new().versioned("web", "web-test", "one", "count = 2").process(
        "clock",
        "tick-test",
        "schedule = \"@yearly\"",
    );
    let host = Host::run(&formation);
    formation.build("web", "web-test", "two");
    host.cli(["deploy"]).done();
    assert_eq!(host.version(), "two");
    let Some(page) = Page::open(&formation) else { return };
    let Page { browser, .. } = &page;
    page.go("releases");
    browser.press("Roll back to v1");
    browser.press("Roll back");
    browser.sees("v3 is live");
    assert_eq!(host.version(), "one");
    browser.press("Close");
    browser.until("[...document.querySelectorAll('tbody tr')].some((row) => row.textContent.includes('v3') && row.textContent.includes('live'))");
    browser.press("v3");
    browser.sees("rollback to v1");
    browser.sees("[process.web]");

    page.go("schedules");
    browser.press("Run a tick of clock now");
    browser.until("document.querySelector('[data-process=clock] tbody tr')");
    browser.sees("by hand");
    page.is_by_itself();
}

#[test]
fn every_page_is_sound_in_light_and_dark_and_in_a_narrow_window() {
    let formation = shop();
    let host = Host::run(&formation);
    let dead = host.enqueue("mail", "bury:no such address");
    host.cli(["enqueue", "later", "ok", "--in", "1h"]).done();
    host.cli(["tick", "clock"]);
    host.get("/log?lines=3").ok();
    host.get("/trap");
    let Some(page) = Page::open(&formation) else { return };
    let Page { browser, .. } = &page;
    let pages = PAGES.into_iter().map(str::to_owned).chain([
        format!("job/{dead}"),
        "release/1".to_owned(),
        "nothing".to_owned(),
    ]);
    for name in pages {
        page.go(&name);
        browser.until("document.querySelector('#app strong')");
        // A page has all that it asks for, or says that there is none.
        browser.until("![...document.querySelectorAll('main .empty')].some((one) => /^(Looking|Waiting for the host)/.test(one.textContent) && !one.hidden)");
        for (scheme, width) in [("light", 1280), ("dark", 360)] {
            browser.prefer(scheme);
            browser.resize(width, 800);
            browser.until(&format!(
                "innerWidth === {width} && matchMedia('(prefers-color-scheme: {scheme})').matches"
            ));
            page.is_sound(&format!("{name}, {scheme}, {width}"));
        }
    }
    // And a question.
    page.go(&format!("job/{dead}"));
    browser.press("Discard");
    browser.until("document.querySelector('dialog[open]')");
    page.is_sound("a question");
    browser.press("Leave it");
    page.is_by_itself();

    // One who isn't in is told so.
    browser.go(&page.dashboard.link);
    browser.sees("This link is used up");
}

/// `WASMHOST_WRITE_DOCS=1` takes the pictures of docs/dashboard.md, from a host that has run for a few minutes.
#[test]
#[ignore = "takes minutes, for pictures"]
fn the_docs_have_pictures() {
    let Some(folder) = std::env::var_os("WASMHOST_WRITE_DOCS").map(|_| repository().join("docs/dashboard"))
    else {
        return;
    };
    std::fs::create_dir_all(&folder).unwrap();
    take_pictures(folder);
}

fn take_pictures(folder: PathBuf) {
    use std::time::{Duration, Instant};

    let formation = Formation::new()
        .versioned("web", "web-test", "one", "count = 4")
        .process("worker", "job-test", "queue = { default = 3, mail = 1 }\ncount = 3\nattempts = 3")
        .directory("out")
        .process(
            "clock",
            "tick-test",
            "schedule = \"*/5 * * * *\"\ndirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]",
        )
        .replace("name = \"test\"", "name = \"shop\"");
    let host = Host::run(&formation);
    let Some(page) = Page::open(&formation) else { return };
    let Page { browser, .. } = &page;
    formation.build("web", "web-test", "two");
    host.cli(["deploy"]).done();
    let begun = Instant::now();
    let minutes = crate::harness::setting("WASMHOST_PICTURE_MINUTES", 5) as u64;
    let (mut round, mut dead) = (0u64, 0);
    while begun.elapsed() < Duration::from_secs(60 * minutes) {
        round += 1;
        let wave = 30 + (20.0 * (round as f64 / 40.0).sin()) as u64;
        for n in 0..wave {
            host.get(if n % 40 == 7 {
                "/status?code=500"
            } else if n % 9 == 0 {
                "/spin?ms=3"
            } else {
                "/ok"
            });
        }
        let payload = if round.is_multiple_of(9) {
            "retry:the mail server is busy"
        } else {
            "print:sent a receipt to ann@example.com\nsleep:20"
        };
        host.enqueue(if round.is_multiple_of(3) { "mail" } else { "default" }, payload);
        if round.is_multiple_of(40) {
            dead = host.enqueue("mail", "bury:no such address: bob@example.com");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    host.get("/trap");
    host.cli(["tick", "clock"]);
    let job = format!("job/{dead}");
    let row = "document.querySelector('tbody tr')";
    let shots = [
        ("light", 1280, "formation", "formation", "document.querySelector('.card .series')"),
        ("light", 1280, "types/web", "type", row),
        ("light", 1280, "queues", "queues", "document.querySelector('.card .states li')"),
        ("light", 1280, "jobs", "jobs", row),
        ("light", 1280, &job, "job", row),
        ("light", 1280, "schedules", "schedules", row),
        ("light", 1280, "releases", "releases", row),
        ("dark", 1280, "formation", "formation-dark", "document.querySelector('.card .series')"),
        ("dark", 1280, "types/web", "type-dark", row),
        ("dark", 1280, "queues", "queues-dark", "document.querySelector('.card .states li')"),
        ("dark", 1280, "logs", "logs-dark", "document.querySelector('.log li')"),
        ("light", 360, "formation", "formation-narrow", "document.querySelector('.card .series')"),
        ("dark", 360, "jobs", "jobs-narrow", row),
    ];
    for (scheme, width, name, file, ready) in shots {
        browser.prefer(scheme);
        browser.resize(width, if width < 500 { 780 } else { 900 });
        page.go(name);
        browser.until(ready);
        browser.picture(&folder.join(format!("{file}.png")));
    }
}
