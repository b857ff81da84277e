//! `kill -9` of the host.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use crate::harness::http::{Client, Request};
use crate::harness::{Formation, Host, Shop, eventually, setting};

/// `ORDERS=10000` makes it longer, `SEED=...` repeats one.
#[test]
fn every_order_that_was_accepted_before_the_kill_gets_its_receipt() {
    let orders = setting("ORDERS", 2_000);
    let seed = setting("SEED", fastrand::usize(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed as u64);
    let kill_after = random.usize(1..orders);

    let formation = Formation::shop();
    let host = Host::run(&formation);
    let address = host.address();
    let shop = Shop::default();
    let (next, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::new(address);
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= orders {
                        return;
                    }
                    let request = Request::post("/orders", format!("item=tea-{number}&quantity=1"));
                    // Who isn't answered, because the host is dead, was promised nothing.
                    let Ok(answer) = client.send(&request) else { return };
                    assert_eq!(answer.status, 202, "{answer:?}");
                    let text = answer.text();
                    shop.accept(text.trim().strip_prefix("order ").unwrap(), format!("1 x tea-{number}"));
                    answered.fetch_add(1, Relaxed);
                }
            });
        }
        eventually("it is time for the kill", || (answered.load(Relaxed) >= kill_after).then_some(()));
        host.kill();
    });
    println!("{} of {orders} orders were accepted", shop.accepted());
    assert!(shop.accepted() >= kill_after);

    let host = Host::run(&formation);
    shop.has_all_receipts(&formation);
    eventually("every job is done", || {
        let jobs = host.store().jobs();
        jobs.iter().all(|job| job.state == "done").then_some(())
    });
    host.stop().done();
}

#[test]
fn leases_of_a_killed_host_are_freed_at_once() {
    let dirs = "dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    let formation = Formation::new().directory("out").process(
        "worker",
        "job-test",
        &format!("queue = \"default\"\n{dirs}"),
    );
    let host = Host::run(&formation);
    let id = host.enqueue("default", "write:a\nuntil:go");
    eventually("it runs", || (!formation.read("out/a").is_empty()).then_some(()));
    assert_eq!(host.store().job(id).state, "leased");
    host.kill();
    std::fs::write(formation.path("out/go"), "").unwrap();
    let host = Host::run(&formation);
    host.stderr().wait_for("1 jobs that the last run had begun will run again");
    // Not after the lease's 30 s, and not after a retry's 16.
    let begun = std::time::Instant::now();
    let job = host.store().wait_for(id, "done");
    assert!(begun.elapsed().as_secs() < 15, "{:?}", begun.elapsed());
    assert_eq!((job.attempt, job.crashes), (2, 0));
    assert_eq!(formation.read("out/a"), format!("{id} 1 worker.1\n{id} 2 worker.1\n"));
}
