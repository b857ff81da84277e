//! Names that other tools have for what a formation says in another way: an unknown key of such a name gets a hint
//! instead of a list of names.

/// The advice for this key, in the table of this name: `http`, or `process.web`.
pub(crate) fn hint(table: &str, key: &str) -> Option<String> {
    let key = key.to_ascii_lowercase().replace('-', "_");
    let kind = kind(table);
    let hint = match kind {
        "" => of_top(&key),
        "http" => of_http(&key),
        "store" => of_store(&key),
        "queues" => of_queue(&key),
        "process" => of_process(&key),
        "process.dirs" => of_dirs(&key),
        _ => None,
    };
    hint.map(str::to_owned).or_else(|| misplaced(kind, &key))
}

/// `process.web` is a `process`.
fn kind(table: &str) -> &str {
    match table.split_once('.') {
        Some(("process", rest)) if rest.ends_with(".dirs") => "process.dirs",
        Some(("process", rest)) if !rest.contains('.') => "process",
        Some(("queues", _)) => "queues",
        _ => table,
    }
}

fn of_top(key: &str) -> Option<&'static str> {
    Some(match key {
        "services" | "apps" | "types" | "processes" | "formation" | "workers" => {
            "a process type is a table [process.NAME]"
        }
        "web" | "worker" | "clock" => "a process type is a table such as [process.web]",
        "port" | "host" | "address" | "bind" | "ports" | "server" => {
            "write listen = \"127.0.0.1:8080\" under [http]"
        }
        "tls" | "ssl" | "https" => "certificates are in [http.tls]",
        "env" | "environment" | "variables" => {
            "each process type is granted its own: env = { NAME = \"value\" } under [process.NAME]"
        }
        "env_file" | "dotenv" => {
            "a file .env beside the formation is read by itself; env = { NAME = { from_env = \"NAME\" } } under [process.NAME] grants a variable of it"
        }
        "version" => "a formation has no version: leave it out",
        "database" | "db" | "database_url" => "the store is [store] url = \"sqlite:PATH\"",
        "state" | "data_dir" | "workdir" | "working_dir" => "write state_dir = \"PATH\"",
        "shutdown_timeout" | "stop_timeout" | "grace_period" | "stop_grace_period" => "write grace = \"30s\"",
        "log" | "logs" | "logging" | "log_level" => {
            "the environment variable WASMHOST_LOG says what the host logs"
        }
        "cron" | "schedules" => {
            "a schedule is a process type of its own: schedule = \"*/5 * * * *\" under [process.NAME]"
        }
        _ => return None,
    })
}

fn of_http(key: &str) -> Option<&'static str> {
    Some(match key {
        "port" | "ports" | "host" | "address" | "addr" | "bind" => "write listen = \"127.0.0.1:8080\"",
        "cert" | "key" | "certificate" | "ssl" | "https" => "certificates are in [http.tls]",
        "keepalive" | "keep_alive" | "keepalive_timeout" => "write idle_timeout = \"1m\"",
        "timeout" | "request_timeout" => "the time of a request is `timeout` under [process.NAME]",
        "max_body_size" | "body_limit" | "client_max_body_size" => {
            "the longest body is `max_body` under [process.NAME]"
        }
        "routes" | "path" | "paths" => "write route = \"/\" under [process.NAME]",
        "log" | "logs" => "write access_log = \"text\"",
        "proxies" | "trusted_proxy" | "forwarded" => "write trusted_proxies = [\"10.0.0.0/8\"]",
        _ => return None,
    })
}

fn of_store(key: &str) -> Option<&'static str> {
    Some(match key {
        "path" | "file" | "database" | "backend" | "type" | "kind" | "driver" | "dsn" => {
            "write url = \"sqlite:PATH\""
        }
        "retention" | "ttl" | "keep" => "write keep_done = \"1h\", or keep_dead = \"180d\"",
        _ => return None,
    })
}

fn of_queue(key: &str) -> Option<&'static str> {
    Some(match key {
        "retries" | "attempts" | "max_attempts" | "backoff" | "timeout" => {
            "tries and times are the worker's: `attempts`, `backoff` and `timeout` under its [process.NAME]"
        }
        "limit" | "max_length" | "max_size" | "size" | "length" => "write max_depth = 100_000",
        "workers" | "parallelism" | "max_concurrency" => "write concurrency = 4",
        "paused" => "`wasmhost jobs pause QUEUE` stops a queue",
        _ => return None,
    })
}

fn of_process(key: &str) -> Option<&'static str> {
    Some(match key {
        "port" | "ports" | "listen" | "host" | "address" | "bind" | "expose" => {
            "the host listens, and not the process type: `listen` under [http] says where, and `route` which requests the type gets"
        }
        "command" | "cmd" | "entrypoint" | "exec" | "program" => {
            "`component` names the .wasm file, and `args` its arguments"
        }
        "image" | "wasm" | "module" | "file" | "source" | "binary" | "path_to_wasm" => {
            "write component = \"web.wasm\""
        }
        "environment" | "envs" | "variables" | "vars" => "write env = { NAME = \"value\" }",
        "env_file" | "dotenv" => {
            "a file .env beside the formation is read by itself; env = { NAME = { from_env = \"NAME\" } } grants a variable of it"
        }
        "secrets" | "secret" => "write env = { NAME = { file = \"/run/secrets/name\" } }",
        "volumes" | "volume" | "mounts" | "mount" | "preopens" | "preopen" | "files" | "directories" => {
            "write dirs = [{ host = \"data\", guest = \"/data\", access = \"write\" }]"
        }
        "cron" | "crontab" | "cron_schedule" => "write schedule = \"*/5 * * * *\"",
        "interval" | "period" => "write every = \"30s\"",
        "retries" | "retry" | "max_retries" | "max_attempts" | "tries" => {
            "write attempts = 5, which counts the first try too"
        }
        "retry_delay" | "retry_backoff" => "write backoff = [\"10s\", \"1m\"]",
        "replicas" | "instances" | "scale" | "num_instances" | "quantity" | "numprocs" => "write count = 4",
        "workers" | "processes" => "write count = 4, the number of instances",
        "threads" => {
            "an instance has one thread: `count` says how many instances, and with WASI 0.3 `concurrency` how many calls in each"
        }
        "restart" | "restart_policy" | "autorestart" => {
            "an instance that ends is always started again; `run` says when a command runs"
        }
        "mem" | "ram" | "mem_limit" | "memory_limit" | "max_memory" | "memory_max" => {
            "write memory = \"128MiB\""
        }
        "cpus" | "cpu_limit" | "cpu_quota" => {
            "`cpu` bounds the computing time of one call, such as cpu = \"1s\"; `weight` is the type's share where types compete"
        }
        "cpu_shares" | "cpu_share" | "cpu_weight" | "cpuweight" | "shares" | "share" | "nice"
        | "priority" => {
            "write weight = 4: where types compete for the CPU, this one gets 4 times the time of one of weight 1"
        }
        "resources" | "limits" | "deploy" => "write `memory`, `timeout` and `cpu` beside `component`",
        "routes" | "path" | "paths" | "url" | "hostname" | "domain" | "domains" | "prefix" => {
            "write route = \"api.example.com/v1\", or an array of routes"
        }
        "trigger" | "type" | "kind" => {
            "what calls a type is said by one of `route`, `queue`, `schedule`, `every` and `run`"
        }
        "name" => "the name is the table's: [process.NAME]",
        "allowed_hosts" | "allowed_outbound_hosts" | "allow_net" | "egress" | "network_mode" => {
            "write outbound = [\"https://api.example.com\"]"
        }
        "depends_on" | "after" | "requires" => {
            "all types start together; a step that must come before them is a type with run = \"release\""
        }
        "working_dir" | "workdir" | "cwd" | "directory" => {
            "a sandbox has no folder of its own: `dirs` grants directories"
        }
        "user" | "uid" => "instances are no processes of the system: all run as the host's user",
        "healthcheck" | "health_check" | "liveness" | "readiness" => {
            "health checks of a type are not supported yet by this version: leave it out"
        }
        "body_limit" | "max_body_size" => "write max_body = \"10MiB\"",
        "log_rate" | "log_limit" | "max_log_rate" => "write max_log = \"1MiB/s\"",
        "produces" | "publishes" | "enqueues" => "write enqueue = [\"default\"]",
        _ => return None,
    })
}

fn of_dirs(key: &str) -> Option<&'static str> {
    Some(match key {
        "source" | "src" | "from" | "path" => "write host = \"data\", the path on this machine",
        "target" | "dst" | "destination" | "to" | "mount" => {
            "write guest = \"/data\", the path in the sandbox"
        }
        "mode" | "readonly" | "read_only" | "ro" | "rw" | "writable" | "write" => {
            "write access = \"read\" or access = \"write\""
        }
        "size" | "quota" | "limit" | "max_size" => "write max_bytes = \"1GiB\"",
        _ => return None,
    })
}

/// Keys that belong to one table and are written in another.
const PLACES: [(&str, &str, &[&str]); 4] = [
    ("", "at the top of the file", &["state_dir", "grace", "drain_delay", "keep_releases", "max_instances"]),
    (
        "http",
        "under [http]",
        &[
            "socket_mode",
            "header_timeout",
            "idle_timeout",
            "body_timeout",
            "max_header",
            "max_connections",
            "max_connections_per_address",
            "max_streams",
            "trusted_proxies",
            "access_log",
        ],
    ),
    ("store", "under [store]", &["keep_done", "keep_done_max", "keep_dead", "keep_dead_max"]),
    (
        "process",
        "under [process.NAME]",
        &[
            "component",
            "count",
            "args",
            "memory",
            "timeout",
            "cpu",
            "weight",
            "concurrency",
            "isolation",
            "max_calls",
            "max_age",
            "backlog",
            "queue_timeout",
            "max_body",
            "max_log",
            "ready",
            "route",
            "queue",
            "schedule",
            "every",
            "run",
            "attempts",
            "dirs",
            "outbound",
            "network",
            "enqueue",
            "time_zone",
            "jitter",
            "missed",
            "overlap",
            "trust_cwasm",
            "missing_imports",
        ],
    ),
];

fn misplaced(kind: &str, key: &str) -> Option<String> {
    let (_, place, _) = PLACES.iter().find(|(home, _, keys)| *home != kind && keys.contains(&key))?;
    Some(format!("it belongs {place}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_tools_get_their_hint() {
        for key in
            ["port", "command", "environment", "volumes", "cron", "retries", "replicas", "image", "Env-File"]
        {
            assert!(hint("process.web", key).is_some(), "{key}");
        }
        assert!(hint("http", "port").unwrap().contains("listen"));
        assert!(hint("process.web", "CPUWeight").unwrap().contains("weight = 4"));
        assert!(hint("process.web.dirs", "source").unwrap().contains("host"));
        assert!(hint("queues.mail", "retries").unwrap().contains("attempts"));
        assert_eq!(hint("process.web", "colour"), None);
    }

    #[test]
    fn a_key_in_the_wrong_table_is_sent_to_its_own() {
        assert_eq!(hint("process.web", "grace").unwrap(), "it belongs at the top of the file");
        assert_eq!(hint("", "count").unwrap(), "it belongs under [process.NAME]");
        assert_eq!(hint("process.web", "count"), None, "it is there");
    }
}
