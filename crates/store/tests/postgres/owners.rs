//! Several hosts on one schema, each with connections of its own, by the server's clock.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use wasmhost_store::jobs::{
    AfterFailure, Backoff, Claim, ClaimQueue, EnqueueError, Failure, JobId, JobState, Lease, NewJob, Settled,
    Unique, UniqueScope,
};
use wasmhost_store::{Jobs, PostgresStore, Ticks, Timestamp};

use crate::server::Server;
use crate::{claim, fresh, job, open};

const OWNERS: usize = 3;

pub(crate) async fn owners(server: &Server) -> Vec<Arc<PostgresStore>> {
    let url = fresh(server);
    let mut stores = Vec::new();
    for _ in 0..OWNERS {
        stores.push(open(&url).await);
    }
    stores
}

/// Runs so many tasks, one store after another, and returns what they return.
async fn crowd<T, F>(
    stores: &[Arc<PostgresStore>],
    size: usize,
    body: impl Fn(Arc<PostgresStore>, usize) -> F,
) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = (0..size).map(|n| tokio::spawn(body(stores[n % stores.len()].clone(), n))).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

async fn count(store: &PostgresStore, state: JobState) -> u64 {
    let counts = store.counts().await.unwrap();
    let of = |counts: &wasmhost_store::jobs::QueueCounts| match state {
        JobState::Available => counts.available,
        JobState::Leased => counts.leased,
        JobState::Done => counts.done,
        _ => unreachable!(),
    };
    counts.iter().map(of).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_job_is_had_by_two_and_the_numbers_are_exact() {
    const JOBS: usize = 1_200;
    let Some(server) = Server::start() else { return };
    let stores = owners(&server).await;
    let had = crowd(&stores, 24, |store, n| async move {
        store.enqueue(vec![job(if n % 2 == 0 { "mail" } else { "reports" }); JOBS / 24]).await.unwrap();
        let mut had: Vec<Lease> = Vec::new();
        for round in 0.. {
            let queue = if (n + round) % 3 == 0 { "mail" } else { "reports" };
            let jobs = store.claim(claim(&format!("host/{n}"), queue, 1 + n as u32 % 7)).await.unwrap();
            if jobs.is_empty() && round > 20 {
                break;
            }
            for job in jobs {
                if job.lease.claim == 1 && job.lease.id.0 % 5 == 0 {
                    assert_eq!(store.release(job.lease).await.unwrap(), Settled::Released);
                } else {
                    assert_eq!(store.complete(job.lease).await.unwrap(), Settled::Done);
                    had.push(job.lease);
                }
            }
        }
        had
    })
    .await;
    let mut ids: Vec<JobId> = had.into_iter().flatten().map(|lease| lease.id).collect();
    for queue in ["mail", "reports"] {
        for job in stores[0].claim(claim("host/last", queue, 1_000)).await.unwrap() {
            stores[1].complete(job.lease).await.unwrap();
            ids.push(job.lease.id);
        }
    }
    assert_eq!((ids.len(), ids.iter().collect::<HashSet<_>>().len()), (JOBS, JOBS));
    for store in &stores {
        assert_eq!(count(store, JobState::Done).await, JOBS as u64);
        assert_eq!(count(store, JobState::Available).await + count(store, JobState::Leased).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_concurrency_is_never_passed() {
    let Some(server) = Server::start() else { return };
    let stores = owners(&server).await;
    stores[0].enqueue(vec![job("mail"); 300]).await.unwrap();
    let limited = |owner: usize| Claim {
        queues: vec![ClaimQueue { name: "mail".to_owned(), weight: 1, concurrency: Some(4) }],
        ..claim(&format!("host/{owner}"), "mail", 3)
    };
    let most = crowd(&stores, 12, |store, n| async move {
        let mut most = 0;
        for _ in 0..12 {
            let jobs = store.claim(limited(n)).await.unwrap();
            let leased = count(&store, JobState::Leased).await;
            most = most.max(leased);
            for job in jobs {
                store.complete(job.lease).await.unwrap();
            }
        }
        most
    })
    .await;
    let most = most.into_iter().max().unwrap();
    assert!((1..=4).contains(&most), "{most} ran of 4");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_depth_is_never_passed() {
    let Some(server) = Server::start() else { return };
    let stores = owners(&server).await;
    let taken = crowd(&stores, 30, |store, _| async move {
        let mut taken = 0;
        for _ in 0..4 {
            match store.enqueue(vec![NewJob { max_depth: Some(50), ..job("mail") }; 3]).await {
                Ok(jobs) => taken += jobs.len(),
                Err(EnqueueError::Full { depth, .. }) => assert!((48..=50).contains(&depth), "{depth}"),
                Err(other) => panic!("{other:?}"),
            }
        }
        taken
    })
    .await;
    assert_eq!(taken.iter().sum::<usize>(), 48);
    assert_eq!(count(&stores[1], JobState::Available).await, 48);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_has_one_holder() {
    let Some(server) = Server::start() else { return };
    let stores = owners(&server).await;
    for scope in [UniqueScope::Waiting, UniqueScope::Running, UniqueScope::For(Duration::from_secs(600))] {
        let unique = Unique { key: format!("{scope:?}"), scope };
        let keyed = NewJob { unique: Some(unique), ..job("mail") };
        let receipts = crowd(&stores, 24, |store, _| {
            let keyed = keyed.clone();
            async move { store.enqueue(vec![job("mail"), keyed]).await.unwrap()[1] }
        })
        .await;
        assert_eq!(receipts.iter().filter(|receipt| receipt.created).count(), 1);
        assert_eq!(receipts.iter().map(|receipt| receipt.id).collect::<HashSet<_>>().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tick_is_taken_once() {
    let Some(server) = Server::start() else { return };
    let stores = owners(&server).await;
    for nominal in 1..=20 {
        let taken = crowd(&stores, 9, |store, n| async move {
            store.take("clock", Timestamp(nominal), false, &format!("host/{n}")).await.unwrap()
        })
        .await;
        assert_eq!(taken.into_iter().filter(|taken| *taken).count(), 1);
    }
    assert_eq!(stores[2].history("clock", 100).await.unwrap().len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_go_by_the_servers_clock_and_a_late_answer_is_refused() {
    let Some(server) = Server::start() else { return };
    let stores = owners(&server).await;
    let id = stores[0].enqueue(vec![job("mail")]).await.unwrap()[0].id;
    let short = Claim { lease: Duration::from_millis(200), ..claim("host/a", "mail", 1) };
    let late = stores[0].claim(short).await.unwrap().remove(0);
    // Others believe it only once they have been in contact for long enough.
    let mut changes = stores[1].changes();
    let again = loop {
        if let Some(again) = stores[1].claim(claim("host/b", "mail", 1)).await.unwrap().pop() {
            break again;
        }
        tokio::time::timeout(Duration::from_secs(60), changes.changed()).await.unwrap().unwrap();
    };
    assert_eq!((again.lease.id, again.lease.claim, again.attempt), (id, 2, 2));
    assert_eq!(stores[0].complete(late.lease).await.unwrap(), Settled::Stale);
    let failure = Failure { then: AfterFailure::Bury, message: "late".to_owned(), backoff: Backoff::Curve };
    assert_eq!(stores[0].fail(late.lease, failure).await.unwrap(), Settled::Stale);
    assert_eq!(stores[0].renew(vec![late.lease], Duration::from_secs(30)).await.unwrap(), [late.lease]);
    assert_eq!(stores[1].complete(again.lease).await.unwrap(), Settled::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_one_enqueues_wakes_the_others() {
    let Some(server) = Server::start() else { return };
    let stores = owners(&server).await;
    for round in 0..5 {
        let mut changes = stores[1].changes();
        changes.mark_unchanged();
        stores[0].enqueue(vec![job("mail")]).await.unwrap();
        tokio::time::timeout(Duration::from_secs(60), changes.changed()).await.unwrap().unwrap();
        let mut found = stores[1].claim(claim("host/b", "mail", 1)).await.unwrap();
        // A look that was due may have come before the job.
        while found.is_empty() {
            changes.changed().await.unwrap();
            found = stores[1].claim(claim("host/b", "mail", 1)).await.unwrap();
        }
        assert_eq!(found[0].lease.id.0, round + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pauses_cancels_and_prunes_of_one_are_everybodys() {
    let Some(server) = Server::start() else { return };
    let stores = owners(&server).await;
    let ids: BTreeSet<JobId> = stores[0]
        .enqueue(vec![job("mail"); 40])
        .await
        .unwrap()
        .into_iter()
        .map(|receipt| receipt.id)
        .collect();
    stores[0].pause("mail").await.unwrap();
    assert_eq!(stores[1].claim(claim("host/b", "mail", 9)).await.unwrap(), []);
    stores[2].resume("mail").await.unwrap();
    let leased = stores[1].claim(claim("host/b", "mail", 40)).await.unwrap();
    assert_eq!(leased.iter().map(|job| job.lease.id).collect::<BTreeSet<_>>(), ids);
    let cancelled = leased[0].lease;
    stores[2].cancel(cancelled.id).await.unwrap();
    assert_eq!(stores[1].renew(vec![cancelled], Duration::from_secs(30)).await.unwrap(), [cancelled]);
    for job in &leased[1..] {
        stores[1].complete(job.lease).await.unwrap();
    }
    let none =
        wasmhost_store::jobs::Retention { done_for: Duration::ZERO, done_max: 0, ..Default::default() };
    let pruned = crowd(&stores, 6, |store, _| async move {
        let mut pruned = 0;
        loop {
            match store.prune(none).await.unwrap() {
                0 => return pruned,
                some => pruned += some,
            }
        }
    })
    .await;
    assert_eq!(pruned.iter().sum::<u64>(), 40);
    assert_eq!(stores[0].counts().await.unwrap(), []);
}
