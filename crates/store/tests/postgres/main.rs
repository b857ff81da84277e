//! The store in PostgreSQL, against a real server: the suite of all backends, several owners, and a server that goes away.
//!
//! Each is left out, and says so, where no server is installed.

// A test's callers are the tests beside it.
#![allow(unreachable_pub)]
#![allow(clippy::print_stderr, reason = "the test runner shows what is left out")]

mod deploys;
mod opening;
mod outages;
mod owners;
#[allow(dead_code)]
mod server;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wasmhost_config::PostgresUrl;
use wasmhost_store::jobs::{Claim, ClaimQueue, NewJob};
use wasmhost_store::{PostgresStore, conformance};

use server::Server;

/// The URL of a schema that nobody has used.
fn fresh(server: &Server) -> PostgresUrl {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    parsed(&server.url(&format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed))))
}

fn parsed(url: &str) -> PostgresUrl {
    PostgresUrl::parse(url, "shop", Path::new("/")).unwrap()
}

async fn open(url: &PostgresUrl) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::open(url).await.unwrap())
}

fn job(queue: &str) -> NewJob {
    NewJob { queue: queue.to_owned(), payload: b"payload".to_vec(), ..NewJob::default() }
}

fn claim(owner: &str, queue: &str, limit: u32) -> Claim {
    Claim {
        owner: owner.to_owned(),
        queues: vec![ClaimQueue { name: queue.to_owned(), weight: 1, concurrency: None }],
        limit,
        lease: Duration::from_secs(30),
        attempts_default: 25,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_passes_the_suite_of_all_backends() {
    let Some(server) = Server::start() else { return };
    conformance::exercise(async |clock| {
        PostgresStore::open_with_clock(&fresh(&server), clock).await.unwrap()
    })
    .await;
}
