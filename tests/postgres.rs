//! A host whose store is a schema of a PostgreSQL database. Each test is left out, and says so, where no server is installed.

use crate::harness::postgres::Server;
use crate::harness::{Formation, Host};

/// A worker that writes files, a clock of each second, and a web type that enqueues, on this server.
fn formation(server: &Server) -> Formation {
    let dirs = "dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    Formation::new()
        .directory("out")
        .process("worker", "job-test", &format!("queue = \"default\"\ncount = 2\n{dirs}"))
        .process("clock", "tick-test", &format!("schedule = \"* * * * * *\"\noverlap = \"allow\"\n{dirs}"))
        .process("web", "web-test", "enqueue = [\"default\"]")
        .health()
        .table("[store]\nurl = \"${STORE}\"")
        .variable("STORE", server.url("shop"))
}

#[test]
fn a_store_that_can_not_be_opened_says_what_to_do() {
    let Some(server) = Server::start() else { return };
    for (from, to, said) in
        [("s%3Ae", "hunter2", "check the user and password"), ("/postgres?", "/orders?", "createdb orders")]
    {
        let formation = formation(&server).variable("STORE", server.url("shop").replace(from, to));
        let ended = formation.run_to_end();
        assert_eq!(ended.code, 3, "{ended:?}");
        assert!(ended.stderr.contains(said), "{ended:?}");
        assert!(!ended.stderr.contains("hunter2") && !ended.stderr.contains("c%40r"), "{ended:?}");
    }
}

#[test]
fn it_is_backed_up_by_its_own_means() {
    let Some(server) = Server::start() else { return };
    let formation = formation(&server);
    let alone = formation.cli(["jobs", "backup", "copy.db"]);
    assert!(alone.code == 1 && alone.stderr.contains("pg_dump"), "{alone:?}");
    let host = Host::run(&formation);
    let refused = host.cli(["jobs", "backup", "copy.db"]);
    assert!(refused.code == 1 && refused.stderr.contains("pg_dump"), "{refused:?}");
    host.stop().done();
    // The password is shown nowhere.
    let shown = formation.cli(["check", "--json"]);
    assert!(!shown.stdout.contains("c%40r"), "{shown:?}");
}
