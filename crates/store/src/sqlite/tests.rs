//! What only SQLite has to show: files, group commit, faults.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_conformance_suite() {
    let folder = tempfile::tempdir().unwrap();
    let files = std::sync::atomic::AtomicU32::new(0);
    crate::conformance::exercise(async |clock| {
        let number = files.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        SqliteStore::open_with_clock(&folder.path().join(format!("{number}.db")), clock).unwrap()
    })
    .await;
}
