//! Power cuts: at a random moment of its work the store's disk keeps what was synced, and of what was written since
//! whatever it likes. When the store is opened again, everything that callers had been told is true.
//!
//! `WASMHOST_FAULT_ROUNDS=300` for more than a quick look, `WASMHOST_FAULT_SEED` to see one round again.

#![cfg(unix)]

mod disk;
mod vfs;
mod work;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use rusqlite::{Connection, OpenFlags};
use wasmhost_store::jobs::{Claim, ClaimQueue, NewJob, Settled};
use wasmhost_store::{Jobs, SqliteStore, Ticks};

use self::disk::Disk;
use self::work::{Told, work};

/// How often the power goes in one round, each time where the last one left it.
const CUTS: usize = 3;

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn what_was_answered_survives_power_cuts() {
    let first = from_env("WASMHOST_FAULT_SEED");
    let rounds = if first.is_some() { 1 } else { from_env("WASMHOST_FAULT_ROUNDS").unwrap_or(20) };
    let base = first.unwrap_or_else(|| fastrand::u64(0..1 << 48));
    for seed in base..base + rounds {
        if let Err(broken) = round(seed, false) {
            panic!("{broken}; see it again with WASMHOST_FAULT_SEED={seed}");
        }
    }
}

#[test]
fn a_disk_that_lies_about_syncing_is_found_out() {
    // Answers that callers were given are lost, and not only in the first moments of a file.
    let broken: Vec<String> = (0..20).filter_map(|seed| round(seed, true).err()).collect();
    let lost = broken.iter().any(|text| text.contains("is lost") || text.contains(" was "));
    assert!(lost, "a harness that never finds anything proves nothing: {broken:?}");
}

/// Works, cuts the power, looks; a few times over.
fn round(seed: u64, lies: bool) -> Result<(), String> {
    let mut rng = Rng::with_seed(seed);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let told = Arc::new(Mutex::new(Told::default()));
    let mut folder = tempfile::tempdir().unwrap();
    for cut in 0..CUTS {
        let image = tempfile::tempdir().unwrap();
        let known = Arc::new(Mutex::new(None));
        // From the first moments of a file to well past a checkpoint.
        let events = 2f64.powf(rng.f64() * 14.5) as u64 + 1;
        let on_cut = {
            let (told, known, image) = (Arc::clone(&told), Arc::clone(&known), image.path().to_path_buf());
            let mut rng = rng.fork();
            move |contents: &disk::Contents<'_>| {
                // Everything that was told until now, and not a word of what is told later.
                *known.lock().unwrap() = Some(told.lock().unwrap().clone());
                contents.write_image(&image, &mut rng);
            }
        };
        let disk = Arc::new(Disk::new(folder.path(), events, lies, on_cut));
        vfs::record(&disk);
        runtime.block_on(work(folder.path(), &disk, &told, rng.u64(..)));
        let Some(known) = known.lock().unwrap().take() else {
            return Err(format!("cut {cut}: the store could not be opened, or did nothing"));
        };
        runtime
            .block_on(look(image.path(), &known))
            .map_err(|broken| format!("cut {cut} at event {events}: {broken}"))?;
        // Work goes on from here; what was told after the cut is forgotten by everybody.
        let mut told = told.lock().unwrap();
        *told = Told { sent: std::mem::take(&mut told.sent), ..known };
        folder = image;
    }
    Ok(())
}

macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}

/// Whether everything that callers had been told is true.
async fn look(folder: &Path, told: &Told) -> Result<(), String> {
    let path = folder.join("store.db");
    let text = |error: wasmhost_store::StoreError| error.to_string();
    let store = SqliteStore::open(&path).map_err(text)?;
    store.free_leases("host/").await.map_err(text)?;
    for id in told.batches.values().flatten() {
        ensure!(store.get(*id).await.map_err(text)?.is_some(), "job {id} is lost");
    }
    for (id, state) in &told.ended {
        let detail = store.get(*id).await.map_err(text)?;
        let found = detail.map(|detail| detail.view.state);
        ensure!(found == Some(*state), "job {id} was {state}, and is {found:?}");
    }
    let ticks = store.history("clock", 1_000).await.map_err(text)?;
    for nominal in told.ticks.iter().rev().take(1_000) {
        ensure!(ticks.iter().any(|tick| tick.nominal == *nominal), "tick {nominal} is lost");
    }
    if let Some(paused) = told.paused {
        let counts = store.counts().await.map_err(text)?;
        let found = counts.iter().any(|queue| queue.queue == "quiet" && queue.paused);
        ensure!(found == paused || Some(found) == told.asked_paused, "the pause is {found}");
    }
    still_works(&store).await.map_err(text)?;
    store.close().await;
    tables_agree(&path, told).map_err(|error| error.to_string())?
}

async fn still_works(store: &SqliteStore) -> Result<(), wasmhost_store::StoreError> {
    let job = NewJob { queue: "after".to_string(), ..NewJob::default() };
    store.enqueue(vec![job]).await.expect("there is room");
    let claim = Claim {
        owner: "host/2".to_string(),
        queues: vec![ClaimQueue { name: "after".to_string(), weight: 1, concurrency: None }],
        limit: 1,
        lease: Duration::from_secs(30),
        attempts_default: 1,
    };
    let jobs = store.claim(claim).await?;
    assert_eq!(store.complete(jobs[0].lease).await?, Settled::Done);
    Ok(())
}

/// Whether the file is whole, and says the same of each job wherever it says something of it.
fn tables_agree(path: &Path, told: &Told) -> rusqlite::Result<Result<(), String>> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let whole: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let miscounted = count(
        "SELECT count(*) FROM queues WHERE
           scheduled != (SELECT count(*) FROM jobs WHERE jobs.queue = queues.queue AND state = 'scheduled')
           OR available != (SELECT count(*) FROM jobs WHERE jobs.queue = queues.queue AND state = 'available')
           OR leased != (SELECT count(*) FROM jobs WHERE jobs.queue = queues.queue AND state = 'leased')
           OR retrying != (SELECT count(*) FROM jobs WHERE jobs.queue = queues.queue AND state = 'retrying')
           OR done != (SELECT count(*) FROM jobs WHERE jobs.queue = queues.queue AND state = 'done')
           OR dead != (SELECT count(*) FROM jobs WHERE jobs.queue = queues.queue AND state = 'dead')
           OR cancelled != (SELECT count(*) FROM jobs WHERE jobs.queue = queues.queue AND state = 'cancelled')",
    )?;
    let without_payload = count("SELECT count(*) FROM jobs WHERE id NOT IN (SELECT job_id FROM payloads)")?;
    let without_job = count("SELECT count(*) FROM payloads WHERE job_id NOT IN (SELECT id FROM jobs)")?;
    let keys = count(
        "SELECT count(*) FROM (SELECT queue, key, job_id FROM unique_keys EXCEPT
           SELECT queue, unique_key, id FROM jobs WHERE state IN ('scheduled', 'available', 'leased', 'retrying'))",
    )?;
    let half_ended = count(
        "SELECT count(*) FROM jobs WHERE (ended_at IS NOT NULL) != (state IN ('done', 'dead', 'cancelled'))
           OR (lease_until IS NOT NULL) != (state = 'leased')",
    )?;
    let batches: BTreeMap<String, usize> = connection
        .prepare(
            "SELECT content_type, count(*) FROM payloads WHERE content_type != '' GROUP BY content_type",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let halved = batches.iter().find(|(batch, found)| told.sent.get(*batch) != Some(found));
    Ok((|| {
        ensure!(whole == "ok", "the file is damaged: {whole}");
        ensure!(miscounted == 0, "{miscounted} queues are miscounted");
        ensure!(without_payload + without_job == 0, "jobs and payloads don't match");
        ensure!(keys == 0, "{keys} keys are held by jobs that ended");
        ensure!(half_ended == 0, "{half_ended} jobs are in two states");
        ensure!(halved.is_none(), "a batch is stored in part: {halved:?}");
        Ok(())
    })())
}
