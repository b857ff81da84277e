//! A store is opened, or refused with what to do.

use wasmhost_store::{Jobs, PostgresStore, StoreError};

use crate::server::Server;
use crate::{fresh, job, open, parsed};

async fn refusal(url: &str) -> String {
    match PostgresStore::open(&parsed(url)).await {
        Err(StoreError::Open(text)) => text,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("{url} was opened"),
    }
}

#[tokio::test]
async fn a_refusal_says_what_to_do_and_no_password() {
    let Some(server) = Server::start() else { return };
    let url = server.url("shop");
    let wrong = url.replace("s%3Ae", "hunter2");
    for (url, said) in [
        (wrong, "check the user and password in [store] url"),
        (url.replace("/postgres?", "/orders?"), "make it by `createdb orders`"),
        (url.replace(&server.port().to_string(), "1"), "check that the server runs"),
    ] {
        let text = refusal(&url).await;
        assert!(text.contains(said), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("c%40r") && !text.contains("c@r"), "{text}");
    }
    server.sql("CREATE ROLE weak LOGIN PASSWORD 'weak'");
    let weak = format!("postgres://weak:weak@127.0.0.1:{}/postgres?schema=shop", server.port());
    let text = refusal(&weak).await;
    assert!(text.contains("CREATE SCHEMA \"shop\" AUTHORIZATION \"weak\""), "{text}");
    server.sql("CREATE SCHEMA shop AUTHORIZATION weak");
    let store = open(&parsed(&weak)).await;
    store.enqueue(vec![job("mail")]).await.unwrap();
}

#[tokio::test]
async fn another_programs_schema_and_a_newer_one_are_left_as_they_are() {
    let Some(server) = Server::start() else { return };
    server.sql("CREATE SCHEMA other; CREATE TABLE other.jobs (id int)");
    let text = refusal(&server.url("other")).await;
    assert!(text.contains("has tables of another program"), "{text}");
    let url = fresh(&server);
    open(&url).await.close().await;
    let schema = &url.schema;
    // A newer wasmhost was here, and lets this version join.
    server.sql(&format!("UPDATE {schema}.facts SET value = 9 WHERE name = 'version'"));
    open(&url).await.close().await;
    server.sql(&format!("UPDATE {schema}.facts SET value = 9 WHERE name = 'joins_from'"));
    assert!(matches!(PostgresStore::open(&url).await, Err(StoreError::NewerSchema { found: 9, .. })));
}

#[tokio::test]
async fn several_hosts_make_the_schema_together() {
    let Some(server) = Server::start() else { return };
    let url = fresh(&server);
    let stores = futures_util::future::join_all((0..6).map(|_| PostgresStore::open(&url))).await;
    for store in stores {
        store.unwrap().enqueue(vec![job("mail")]).await.unwrap();
    }
    assert_eq!(server.sql(&format!("SELECT available FROM {}.queues", url.schema)), "6");
}

#[tokio::test]
async fn the_first_address_that_can_be_written_is_taken() {
    let Some(server) = Server::start() else { return };
    let closed = format!("127.0.0.1:1,127.0.0.1:{}", server.port());
    let url = server.url("shop").replace(&format!("127.0.0.1:{}", server.port()), &closed);
    open(&parsed(&url)).await.enqueue(vec![job("mail")]).await.unwrap();
}
