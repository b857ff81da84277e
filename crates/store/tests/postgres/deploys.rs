//! Deploys of several hosts on one schema.

use wasmhost_store::members::{Answer, Beat, DeployUnderway, MemberState};
use wasmhost_store::releases::{NewRelease, ReleaseState};
use wasmhost_store::{Members, Releases, StoreError};

use crate::owners::owners;
use crate::server::Server;

fn release(text: &str) -> NewRelease {
    NewRelease {
        author: "deploy".into(),
        of_file: true,
        formation: text.into(),
        dotenv: None,
        fingerprint: text.into(),
        components: vec![],
    }
}

fn beat(host: &str) -> Beat {
    Beat {
        host: host.into(),
        boot: host.into(),
        place: host.into(),
        is_first: true,
        name: host.into(),
        version: "1".into(),
        state: MemberState::Joined,
        said: String::new(),
        shown: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deploy_that_was_overtaken_never_becomes_live() {
    let Some(server) = Server::start() else { return };
    let stores = owners(&server).await;
    for (store, host) in stores.iter().zip(["slow", "fast"]) {
        assert!(matches!(store.beat(beat(host)).await.unwrap(), Answer::Heard(_)));
    }
    let begin = async |at: usize, host: &str, release| {
        let deploy = DeployUnderway { release, host: host.into(), boot: host.into() };
        stores[at].begin_deploy(deploy).await.unwrap()
    };
    let slow = stores[0].add(release("slow")).await.unwrap();
    let fast = stores[1].add(release("fast")).await.unwrap();
    assert_eq!(begin(1, "fast", fast).await, None);
    stores[1].make_live(fast).await.unwrap();
    stores[1].end_deploy("fast").await.unwrap();
    // Its number is lower, so that no other host would follow it.
    assert_eq!(begin(0, "slow", slow).await, None);
    let refused = stores[0].make_live(slow).await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    let found = stores[2].release(slow).await.unwrap().unwrap();
    assert_eq!(
        (found.state, found.why),
        (ReleaseState::Failed, Some("v2 was deployed before it was live".into()))
    );
    assert_eq!(stores[2].live().await.unwrap().unwrap().number, fast);
}
