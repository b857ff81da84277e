//! The server goes away, and comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmhost_store::jobs::{EnqueueError, Settled};
use wasmhost_store::{Jobs, PostgresStore, StoreError};

use crate::server::Server;
use crate::{claim, fresh, job, open};

/// Calls answer within that, whatever the server does.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

async fn until_back(store: &PostgresStore) {
    let until = Instant::now() + Duration::from_secs(120);
    while store.pause("none").await.is_err() {
        assert!(Instant::now() < until, "it is not back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn is_unavailable(store: &PostgresStore) {
    let begun = Instant::now();
    let refused = store.enqueue(vec![job("mail")]).await;
    let Err(EnqueueError::Store(StoreError::Unavailable(text))) = &refused else { panic!("{refused:?}") };
    assert!(!text.contains("c@r") && !text.contains("c%40r"), "{text}");
    assert!(matches!(store.counts().await, Err(StoreError::Unavailable(_))));
    // Two calls, on a machine that may be busy.
    assert!(begun.elapsed() < ANSWERED_WITHIN * 3, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_fail_while_the_server_is_away_and_go_well_after_it() {
    let Some(mut server) = Server::start() else { return };
    let store = open(&fresh(&server)).await;
    store.enqueue(vec![job("mail"); 3]).await.unwrap();
    let leased = store.claim(claim("host/a", "mail", 2)).await.unwrap();
    for how in ["stopped", "killed", "frozen"] {
        match how {
            "stopped" => server.stop(),
            "killed" => server.kill(),
            _ => server.freeze(),
        }
        is_unavailable(&store).await;
        match how {
            "frozen" => server.thaw(),
            _ => server.go(),
        }
        until_back(&store).await;
        store.enqueue(vec![job("mail")]).await.unwrap();
    }
    // Leases are as they were, and ended jobs are stored.
    assert_eq!(store.complete(leased[0].lease).await.unwrap(), Settled::Done);
    assert_eq!(store.renew(vec![leased[1].lease], Duration::from_secs(30)).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_alone_is_hardly_noticed() {
    let Some(server) = Server::start() else { return };
    let store = open(&fresh(&server)).await;
    for _ in 0..5 {
        store.enqueue(vec![job("mail")]).await.unwrap();
        server.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'wasmhost'",
        );
        store.enqueue(vec![job("mail")]).await.unwrap();
        store.counts().await.unwrap();
    }
    assert_eq!(store.counts().await.unwrap()[0].available, 10);
}

/// Connections end at any moment of a transaction, also between a commit and its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_twice_since_its_answer_was_lost_is_stored_once() {
    let Some(server) = Server::start() else { return };
    let server = Arc::new(server);
    let url = fresh(&server);
    let store = open(&url).await;
    let work = |n: usize| {
        let store = store.clone();
        async move {
            let (mut stored, mut unknown, mut done) = (0, 0, 0);
            for _ in 0..60 {
                match store.enqueue(vec![job("mail"); 2]).await {
                    Ok(jobs) => stored += jobs.len(),
                    Err(EnqueueError::Store(StoreError::Unavailable(_))) => unknown += 2,
                    Err(other) => panic!("{other:?}"),
                }
                let Ok(jobs) = store.claim(claim(&format!("host/{n}"), "mail", 2)).await else { continue };
                for job in jobs {
                    // As a host does it.
                    let settled = loop {
                        match store.complete(job.lease).await {
                            Ok(settled) => break settled,
                            Err(StoreError::Unavailable(_)) => {}
                            Err(other) => panic!("{other:?}"),
                        }
                    };
                    assert_eq!(settled, Settled::Done, "nobody else has it");
                    done += 1;
                }
            }
            (stored, unknown, done)
        }
    };
    let ends = {
        let server = server.clone();
        tokio::task::spawn_blocking(move || {
            for _ in 0..12 {
                std::thread::sleep(Duration::from_millis(50));
                server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'wasmhost'");
            }
        })
    };
    let tasks: Vec<_> = (0..8).map(|n| tokio::spawn(work(n))).collect();
    let (mut stored, mut unknown, mut done) = (0, 0, 0);
    for task in tasks {
        let (more_stored, more_unknown, more_done) = task.await.unwrap();
        (stored, unknown, done) = (stored + more_stored, unknown + more_unknown, done + more_done);
    }
    ends.await.unwrap();
    let schema = &url.schema;
    let found: usize = server.sql(&format!("SELECT count(*) FROM {schema}.jobs")).parse().unwrap();
    assert!(found >= stored && found <= stored + unknown, "{found} of {stored} to {}", stored + unknown);
    assert_eq!(unknown, 0, "the server was never away for long");
    let ended: usize =
        server.sql(&format!("SELECT count(*) FROM {schema}.jobs WHERE state = 'done'")).parse().unwrap();
    assert_eq!(ended, done);
    // The numbers are those of the rows.
    let wrong = format!(
        "SELECT count(*) FROM {schema}.queues WHERE queue = 'mail' AND (available, leased, done) <> (
           (SELECT count(*) FROM {schema}.jobs WHERE state = 'available'), (SELECT count(*) FROM {schema}.jobs WHERE state = 'leased'),
           (SELECT count(*) FROM {schema}.jobs WHERE state = 'done'))"
    );
    until_back(&store).await;
    assert_eq!(server.sql(&wrong), "0");
}
