//! `wasmhost dashboard`: a page in a browser, served on loopback by this program, which asks the host by its admin API. The
//! [guard](wasmhost_dashboard) decides who may have it.

mod opener;
mod proxy;

use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use wasmhost_dashboard::Guard;
use wasmhost_host::admin::api::FormationView;

use crate::args::Dashboard;
use crate::client::Client;
use crate::exit::{Exit, Failed, Outcome};
use crate::print;
use crate::signals;

/// The port of http, which no browser says in `Host`.
const PORT_OF_HTTP: u16 = 80;

/// The dashboard, and where it is.
struct Served {
    guard: Arc<Mutex<Guard>>,
    address: SocketAddr,
}

pub(crate) async fn dashboard(client: Client, dashboard: &Dashboard) -> Outcome {
    let formation: FormationView = client.get("/v1/formation").await?;
    let listener = listen(dashboard.port).await?;
    let address = listener.local_addr()?;
    let guard = Arc::new(Mutex::new(Guard::by_link(hosts(address))));
    let served = Served { guard: guard.clone(), address };
    let link = served.link()?;
    if !dashboard.json {
        print::line(format!("The dashboard of {}:", formation.name));
    }
    served.print(&link, dashboard.json)?;
    if !dashboard.json {
        print::note(
            "The link is good once, for 15 minutes. Enter prints another one, Ctrl-C ends the dashboard.",
        );
    }
    let opening = match dashboard.no_open {
        true => None,
        false => opener::open(&link),
    };
    tokio::select! {
        () = proxy::serve(listener, Arc::new(client), guard) => Ok(Exit::Done),
        () = served.print_more_links(dashboard.json) => Ok(Exit::Done),
        code = signals::end_of_program() => {
            // The file that the browser was given goes with this.
            drop(opening);
            Ok(Exit::OfProgram(code?))
        }
    }
}

async fn listen(port: u16) -> Result<TcpListener, Failed> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|err| {
        let message = format!(
            "the dashboard can't listen on 127.0.0.1:{port}: {err}; without --port it takes a free one"
        );
        Failed::new(Exit::Failed, message)
    })
}

/// The names by which a browser may ask.
fn hosts(address: SocketAddr) -> Vec<String> {
    let names = ["127.0.0.1", "localhost"];
    let mut hosts: Vec<_> = names.iter().map(|name| format!("{name}:{}", address.port())).collect();
    if address.port() == PORT_OF_HTTP {
        hosts.extend(names.map(str::to_owned));
    }
    hosts
}

/// Whether standard input is a terminal that others have.
fn is_in_background() -> bool {
    let stdin = std::io::stdin();
    stdin.is_terminal()
        && rustix::termios::tcgetpgrp(&stdin).is_ok_and(|front| front != rustix::process::getpgrp())
}

/// The guard. No code that runs under the lock panics.
fn lock(guard: &Mutex<Guard>) -> MutexGuard<'_, Guard> {
    guard.lock().unwrap_or_else(|poison| poison.into_inner())
}

impl Served {
    fn link(&self) -> Result<String, Failed> {
        let link = lock(&self.guard).link(Instant::now()).map_err(|err| Failed::new(Exit::Failed, err))?;
        Ok(format!("http://{}{link}", self.address))
    }

    fn print(&self, link: &str, as_json: bool) -> Result<(), Failed> {
        if as_json {
            return print::json(&serde_json::json!({ "url": link, "address": self.address.to_string() }));
        }
        print::line(link);
        Ok(())
    }

    /// A line on standard input asks for another link. Never ends.
    async fn print_more_links(&self, as_json: bool) {
        if is_in_background() {
            // The system would stop a program that reads there.
            return std::future::pending().await;
        }
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(_)) = lines.next_line().await {
            if let Err(failed) = self.link().and_then(|link| self.print(&link, as_json)) {
                print::error(failed.message);
            }
        }
        std::future::pending().await
    }
}
