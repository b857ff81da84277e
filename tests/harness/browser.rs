//! A real browser, Debian's Chromium without a window, driven by WebDriver: a handful of JSON calls. Tests that need it are left
//! out where it isn't: `cargo xtask test` installs it where it can.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::{Connection, Request};
use super::{Lines, PATIENCE, eventually};

const PROGRAMS: [&str; 2] = ["chromium", "chromedriver"];

/// The key of an element's name in WebDriver.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one page. It goes when this is dropped.
pub(crate) struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    profile: TempDir,
}

impl Browser {
    /// Starts one of this size. None where there is no Chromium on this machine, which is told.
    pub(crate) fn start(width: u32, height: u32) -> Option<Browser> {
        let [chromium, chromedriver] = PROGRAMS.map(on_path);
        let (Some(chromium), Some(chromedriver)) = (chromium, chromedriver) else {
            eprintln!(
                "LEFT OUT: there is no Chromium with its driver here (Debian: `apt-get install {} chromium-driver`)",
                PROGRAMS[0]
            );
            return None;
        };
        let profile = tempfile::Builder::new().prefix("wasmhost-browser-").tempdir().unwrap();
        let mut command = Command::new(chromedriver);
        // Files of its own are below the profile's folder, and go with it.
        command.arg("--port=0").env("TMPDIR", profile.path()).env("HOME", profile.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = command.spawn().unwrap();
        let lines = Lines::read(driver.stdout.take().unwrap());
        let started = lines.wait_for("started successfully on port ");
        let port = started.rsplit_once("on port ").unwrap().1.trim_end_matches('.').parse::<u16>().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut browser = Browser { driver, address, session: String::new(), profile };
        // A browser that takes too long for its driver on a busy machine is given up by it.
        browser.session = eventually("a browser starts", || browser.open(&chromium, width, height).ok());
        Some(browser)
    }

    fn open(&self, chromium: &Path, width: u32, height: u32) -> Result<String, String> {
        let arguments = [
            "--headless=new".to_owned(),
            // Tests in a container are run by root.
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-background-networking".to_owned(),
            "--force-prefers-reduced-motion".to_owned(),
            format!("--user-data-dir={}", self.profile.path().join("profile").display()),
            format!("--window-size={width},{height}"),
        ];
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            // Those of tests are signed by themselves.
            "acceptInsecureCerts": true,
            "goog:chromeOptions": { "binary": chromium, "args": arguments },
            "goog:loggingPrefs": { "performance": "ALL", "browser": "ALL" },
            "timeouts": { "script": PATIENCE.as_millis() as u64, "pageLoad": PATIENCE.as_millis() as u64 },
        } } });
        let answer = self.call("POST", "/session", &capabilities)?;
        answer["sessionId"].as_str().map(str::to_owned).ok_or_else(|| answer.to_string())
    }

    /// Asks the driver: its value, or its error's text.
    fn call(&self, method: &'static str, path: &str, body: &Value) -> Result<Value, String> {
        let request = match method {
            "POST" => Request::post(path, body.to_string()).header("content-type", "application/json"),
            _ => {
                let mut request = Request::get(path);
                request.method = method;
                request
            }
        };
        let mut connection = Connection::open(self.address).map_err(|failed| format!("{failed:?}"))?;
        let answer = connection.send(&request).map_err(|failed| format!("{failed:?}"))?;
        let value: Value = serde_json::from_slice(&answer.body).map_err(|err| err.to_string())?;
        match answer.status {
            200 => Ok(value["value"].clone()),
            _ => Err(value["value"].to_string()),
        }
    }

    fn ask(&self, method: &'static str, path: &str, body: &Value) -> Result<Value, String> {
        self.call(method, &format!("/session/{}{path}", self.session), body)
    }

    #[track_caller]
    fn must(&self, method: &'static str, path: &str, body: &Value) -> Value {
        self.ask(method, path, body).unwrap_or_else(|err| panic!("{method} {path} {body}: {err}"))
    }

    #[track_caller]
    pub(crate) fn go(&self, url: &str) {
        self.must("POST", "/url", &json!({ "url": url }));
    }

    #[track_caller]
    pub(crate) fn url(&self) -> String {
        self.must("GET", "/url", &Value::Null).as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn resize(&self, width: u32, height: u32) {
        // A window has a least width of its own; a device that is emulated has none.
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// Has the page think that the system is dark, or light.
    #[track_caller]
    pub(crate) fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    #[track_caller]
    fn devtools(&self, command: &str, params: Value) -> Value {
        self.must("POST", "/goog/cdp/execute", &json!({ "cmd": command, "params": params }))
    }

    /// Runs a function's body in the page.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> Value {
        self.must("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until a JavaScript expression is true.
    #[track_caller]
    pub(crate) fn until(&self, expression: &str) {
        eventually(&format!("{expression}; the page:\n{}", self.text()), || {
            let is_so = self.ask(
                "POST",
                "/execute/sync",
                &json!({ "script": format!("return Boolean({expression})"), "args": [] }),
            );
            is_so.is_ok_and(|value| value == true).then_some(())
        });
    }

    /// The text that a person sees.
    pub(crate) fn text(&self) -> String {
        let script = json!({ "script": "return document.body.innerText", "args": [] });
        let text = self.ask("POST", "/execute/sync", &script).unwrap_or_default();
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a person sees this text.
    #[track_caller]
    pub(crate) fn sees(&self, text: &str) {
        self.until(&format!("document.body.innerText.includes({})", json!(text)));
    }

    /// Presses the mouse on the element of this selector, as soon as it is there and nothing is before it.
    #[track_caller]
    pub(crate) fn click(&self, selector: &str) {
        self.with(selector, |element| self.ask("POST", &format!("/element/{element}/click"), &json!({})));
    }

    /// Presses the mouse on the button or link of this name.
    #[track_caller]
    pub(crate) fn press(&self, name: &str) {
        let path = format!(
            "//*[self::button or self::a][not(ancestor::*[@hidden])][not(@disabled)][@aria-label={0} or not(@aria-label) and normalize-space()={0}]",
            json!(name)
        );
        self.with_query("xpath", &path, |element| {
            self.ask("POST", &format!("/element/{element}/click"), &json!({}))
        });
    }

    /// Presses keys, one after the other, wherever the focus is. Keys without a character are as WebDriver names them.
    #[track_caller]
    pub(crate) fn keys(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() }))
            })
            .collect();
        self.must(
            "POST",
            "/actions",
            &json!({ "actions": [{ "type": "key", "id": "keys", "actions": strokes }] }),
        );
    }

    /// Does it to the first element of a selector. The page may be about to change, so that it is tried again.
    #[track_caller]
    fn with(&self, selector: &str, act: impl FnMut(&str) -> Result<Value, String>) {
        self.with_query("css selector", selector, act);
    }

    #[track_caller]
    fn with_query(&self, using: &str, query: &str, mut act: impl FnMut(&str) -> Result<Value, String>) {
        let mut why = String::new();
        let mut found = || {
            let element = self.ask("POST", "/element", &json!({ "using": using, "value": query }))?;
            act(element[ELEMENT].as_str().unwrap_or_default())
        };
        let done = eventually_or_why(|| match found() {
            Ok(_) => Some(()),
            Err(err) => {
                why = err;
                None
            }
        });
        assert!(done, "{query}: {why}\nthe page:\n{}", self.text());
    }

    /// The requests that the browser has made since it was asked last, by their addresses.
    #[track_caller]
    pub(crate) fn requests(&self) -> Vec<String> {
        let entries = self.must("POST", "/se/log", &json!({ "type": "performance" }));
        let messages = entries.as_array().unwrap().iter().filter_map(|entry| {
            let message: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let message = &message["message"];
            (message["method"] == "Network.requestWillBeSent")
                .then(|| message["params"]["request"]["url"].as_str().unwrap_or_default().to_owned())
        });
        messages.collect()
    }

    /// Complaints of the browser since it was asked last: errors of scripts, and breaches of the page's policy. It also notes each
    /// answer that isn't 2xx, which the page may have asked for.
    #[track_caller]
    pub(crate) fn complaints(&self) -> Vec<String> {
        let entries = self.must("POST", "/se/log", &json!({ "type": "browser" }));
        let entries = entries.as_array().unwrap().iter();
        let messages = entries.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned());
        messages.filter(|message| !message.contains("Failed to load resource")).collect()
    }

    /// Writes what a person sees to a file.
    #[track_caller]
    pub(crate) fn picture(&self, file: &Path) {
        let picture = self.must("GET", "/screenshot", &Value::Null);
        fs::write(file, BASE64_STANDARD.decode(picture.as_str().unwrap()).unwrap()).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Without it the browser would outlive its driver.
        let _ = self.ask("DELETE", "", &Value::Null);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The same as [`eventually`], for one who says more when it is in vain.
fn eventually_or_why(mut answer: impl FnMut() -> Option<()>) -> bool {
    let until = std::time::Instant::now() + PATIENCE;
    while std::time::Instant::now() < until {
        if answer().is_some() {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    false
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.exists())
}
