//! Hosts with one store in memory, and supervisors that only note what they are told.

use std::sync::Mutex;

use tokio::task::JoinHandle;
use wasmhost_store::counts::{CountChange, CountTo};
use wasmhost_store::{Counts, ManualClock, SqliteStore, Timestamp};

use super::*;

/// A host whose supervisor has one type.
struct Host {
    heart: JoinHandle<()>,
    end: CancellationToken,
    intake: CancellationToken,
    stop: CancellationToken,
    heard: watch::Receiver<Told>,
    instances: Arc<Mutex<u32>>,
}

/// The last words to the supervisor.
#[derive(Debug, Clone, Default)]
struct Told {
    hosts: Vec<String>,
    counts: BTreeMap<String, u32>,
}

fn identity(host: &str) -> Identity {
    Identity { host: host.to_owned(), place: format!("the place of {host}"), name: host.to_owned() }
}

fn web(actual: u32) -> TypeView {
    serde_json::from_value(serde_json::json!({
        "process": "web", "trigger": "http", "count": 4, "desired": 2, "in_file": 4, "actual": actual, "replacing": 0,
        "draining": 0, "waiting": 0, "restarts": 0, "recycled": 0, "last_end": null, "instances": [],
    }))
    .unwrap()
}

async fn start(store: &Arc<SqliteStore>, host: &str) -> (Host, Membership) {
    let membership = Membership::join(store.clone(), identity(host)).await.unwrap();
    let (actions, mut told_to) = mpsc::channel(8);
    let (tell, heard) = watch::channel(Told::default());
    let instances = Arc::new(Mutex::new(2));
    let own = instances.clone();
    tokio::spawn(async move {
        while let Some(action) = told_to.recv().await {
            match action {
                Action::Look { reply } => drop(reply.send(vec![web(*own.lock().unwrap())])),
                Action::Share { ring, .. } => tell.send_modify(|told| {
                    told.hosts = ring.hosts().iter().map(|host| host.to_string()).collect();
                }),
                Action::HearCounts { counts, .. } => tell.send_modify(|told| told.counts = counts),
                _ => panic!("the supervisor is told nothing else"),
            }
        }
    });
    let (end, intake, stop) = Default::default();
    let (heart_end, heart_intake, heart_stop): (CancellationToken, CancellationToken, CancellationToken) =
        (end, intake, stop);
    let heart = Heart {
        membership: membership.clone(),
        actions,
        ticks: store.clone(),
        about: Box::new(Said::default),
        intake: heart_intake.clone(),
        stop: heart_stop.clone(),
    };
    let heart = tokio::spawn(heart.run(heart_end.clone()));
    (Host { heart, end: heart_end, intake: heart_intake, stop: heart_stop, heard, instances }, membership)
}

impl Host {
    async fn hears(&mut self, what: impl FnMut(&Told) -> bool) -> Told {
        self.heard.wait_for(what).await.unwrap().clone()
    }
}

fn store() -> Arc<SqliteStore> {
    Arc::new(SqliteStore::in_memory().unwrap())
}

#[tokio::test]
async fn hosts_hear_of_each_other_of_counts_and_of_one_that_drains() {
    let store = store();
    let (mut one, _) = start(&store, "a").await;
    one.hears(|told| told.hosts == ["a"]).await;
    let (mut other, membership) = start(&store, "b").await;
    one.hears(|told| told.hosts == ["a", "b"]).await;
    other.hears(|told| told.hosts == ["a", "b"]).await;
    let change = CountChange { process: "web".into(), in_file: 4, to: CountTo::More(3) };
    store.change(vec![change]).await.unwrap();
    other.hears(|told| told.counts == [("web".to_owned(), 7)].into()).await;
    one.intake.cancel();
    other.hears(|told| told.hosts == ["b"]).await;
    assert_eq!(one.heard.borrow().hosts, ["a", "b"], "one that drains keeps its instances");
    one.end.cancel();
    one.heart.await.unwrap();
    assert_eq!(membership.known().members.len(), 2);
}

#[tokio::test]
async fn others_hear_at_once_of_instances_that_have_changed() {
    let store = store();
    let (mut one, _) = start(&store, "a").await;
    one.hears(|told| told.hosts == ["a"]).await;
    *one.instances.lock().unwrap() = 1;
    loop {
        let shown = store.shown().await.unwrap();
        if super::super::said::types_of(&shown[0].shown).iter().any(|view| view.actual == 1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_second_host_with_one_id_is_refused_as_long_as_the_first_lives() {
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let store = Arc::new(SqliteStore::in_memory_with_clock(clock.clone()).unwrap());
    let first = Membership::join(store.clone(), identity("a")).await.unwrap();
    let elsewhere = Identity { place: "elsewhere".into(), ..identity("a") };
    let second = tokio::spawn(Membership::join(store.clone(), elsewhere.clone()));
    let beating = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            clock.advance(Duration::from_millis(400));
            store.beat(first.beat(MemberState::Joined, false, String::new(), None)).await.unwrap();
        }
    };
    let refused = tokio::select! {
        refused = second => refused.unwrap().err().unwrap(),
        () = beating => unreachable!(),
    };
    assert!(refused.to_string().contains("Remove host_id"), "{refused}");
    // The first is dead, and its row grows old.
    let second = tokio::spawn(Membership::join(store.clone(), elsewhere));
    let ageing = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            clock.advance(Duration::from_millis(400));
        }
    };
    tokio::select! {
        joined = second => drop(joined.unwrap().unwrap()),
        () = ageing => unreachable!(),
    }
}

#[tokio::test]
async fn a_host_whose_place_was_taken_stops() {
    let store = store();
    let (mut one, _) = start(&store, "a").await;
    one.hears(|told| told.hosts == ["a"]).await;
    Membership::join(store.clone(), identity("a")).await.unwrap();
    one.stop.cancelled().await;
}

#[tokio::test]
async fn a_deploy_whose_end_could_not_be_told_is_ended_by_a_later_heartbeat() {
    let store = store();
    let (mut one, membership) = start(&store, "a").await;
    one.hears(|told| told.hosts == ["a"]).await;
    // One that is under way stays over heartbeats.
    assert_eq!(membership.begin_deploy(7).await.unwrap(), None);
    let mut known = membership.watch();
    for _ in 0..2 {
        known.wait_for(|known| known.deploy.is_some()).await.unwrap();
        known.changed().await.unwrap();
    }
    assert!(membership.known().deploy.is_some());
    // It ends, and the store isn't told.
    *membership.deploys.lock().await = false;
    known.wait_for(|known| known.deploy.is_none()).await.unwrap();
}
