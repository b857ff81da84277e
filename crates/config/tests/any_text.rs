//! Whatever the text, it is read or refused: nothing panics. Whatever the formation, what is shown reads
//! back.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wasmhost_config::*;

fn read(text: &str, dotenv: Option<&str>) -> Result<Formation, LoadError> {
    let origin = Origin {
        file: Path::new("formation.toml"),
        folder: Path::new("/srv/shop"),
        environment: &|name| (name.len() == 1).then(|| name.into()),
        dotenv,
    };
    parse(text, &origin)
}

/// Pieces that bring the reader further than random characters do.
const PIECES: [&str; 50] = [
    "[process.web]\n",
    "[process.a]\n",
    "[[process.a.dirs]]\n",
    "[http]\n",
    "[store]\n",
    "[queues.mail]\n",
    "process",
    ".",
    "component = ",
    "count = ",
    "route = ",
    "queue = ",
    "schedule = ",
    "every = ",
    "jitter = ",
    "time_zone = ",
    "attempts = ",
    "backoff = ",
    "memory = ",
    "timeout = ",
    "isolation = ",
    "weight = ",
    "concurrency = ",
    "max_calls = ",
    "max_age = ",
    "env = ",
    "dirs = ",
    "outbound = ",
    "listen = ",
    "url = ",
    "keep_done = ",
    "keep_dead_max = ",
    "\"web.wasm\"",
    "\"/\"",
    "\"0 0 L * 5#2\"",
    "\"1h\"",
    "\"1MiB\"",
    "\"${A}\"",
    "\"${\"",
    "{ host = \"a\", guest = \"b\" }",
    "{ from_env = \"A\" }",
    "[",
    "]",
    "{ ",
    " }",
    ", ",
    "5",
    "\n",
    "\"",
    "ä",
];

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*", dotenv in option::of("\\PC*")) {
        let _ = read(&text, dotenv.as_deref()).map_err(|error| error.to_string());
    }

    #[test]
    fn any_pieces_are_read_or_refused(pieces in vec(select(&PIECES[..]), 0..30)) {
        let text = pieces.concat();
        match read(&text, None) {
            Ok(formation) => prop_assert!(!formation.processes.is_empty()),
            Err(error) => prop_assert!(error.to_string().contains("formation.toml:")),
        }
    }

    #[test]
    fn any_schedule_is_read_or_refused(
        cron in "[0-9*/,\\-LW#?+@A-Z ]{0,16}|\\PC*",
        zone in "[A-Za-z/]{0,12}|\\PC*",
    ) {
        let (cron, zone) = (toml::Value::from(cron), toml::Value::from(zone));
        let text = format!("[process.c]\ncomponent = \"c\"\nschedule = {cron}\ntime_zone = {zone}\n");
        let _ = read(&text, None);
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same_formation(formation in formation()) {
        let text = formation.to_toml();
        let again = read(&text, None);
        prop_assert!(again.is_ok(), "{}\n{}", again.unwrap_err(), text);
        prop_assert_eq!(again.unwrap(), formation, "{}", text);
    }

    #[test]
    fn nothing_differs_between_a_formation_and_itself(formation in formation()) {
        let changes = Changes::between(&formation, &formation, &|_| false);
        prop_assert!(changes.is_empty(), "{:?}", changes);
    }

    #[test]
    fn whatever_differs_is_told(old in formation(), other in formation(), part in 0..11) {
        let mut new = old.clone();
        match part {
            0 => new.name = other.name,
            1 => new.state_dir = other.state_dir,
            2 => new.max_instances = other.max_instances,
            3 => (new.grace, new.drain_delay) = (other.grace, other.drain_delay),
            4 => new.http = other.http,
            5 => new.store = other.store,
            6 => new.retention = other.retention,
            7 => new.queues = other.queues,
            8 => new.keep_releases = other.keep_releases,
            9 => new.compile = other.compile,
            _ => new.processes[0] = ProcessType { name: new.processes[0].name.clone(), ..other.processes[0].clone() },
        }
        let changes = Changes::between(&old, &new, &|_| false);
        prop_assert_eq!(changes.is_empty(), new == old, "{:?}", changes);
        let types: Vec<&str> = changes.types.iter().map(|change| change.process.as_str()).collect();
        prop_assert!(types.is_empty() || types == [old.processes[0].name.as_str()], "{:?}", changes);
    }
}

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9-]{0,8}"
}

/// Text with what TOML and the expansion of variables could stumble over.
fn text() -> impl Strategy<Value = String> {
    "[a${}:\\-\"'\\\\\n\t\u{7f}\u{1}ä ]{0,12}|[^\0]{0,8}"
}

fn path() -> impl Strategy<Value = PathBuf> {
    "/[a-z${} ä\"'\\\\]{1,8}(/[a-z${}.]{0,6}[a-z])?".prop_map(|path| Path::new(&path).components().collect())
}

fn duration() -> impl Strategy<Value = Duration> {
    (1u64..=7 * 86_400_000).prop_map(Duration::from_millis)
}

fn age() -> impl Strategy<Value = Duration> {
    (1_000u64..=365 * 86_400_000).prop_map(Duration::from_millis)
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z][a-z0-9]{0,5}(\\.[a-z]{1,5}){0,2}", Just("10.0.0.1".to_owned())]
}

fn trigger() -> impl Strategy<Value = Option<Trigger>> {
    let route =
        (option::of(host()), "/|(/[a-z0-9$]{1,5}){1,3}").prop_map(|(host, path)| Route { host, path });
    let queues = btree_map(name(), 1u32..=1000, 1..4).prop_map(|queues| queues.into_iter().collect());
    let cron = (
        select(vec!["*/5 * * * *", "0 0 0 1 1 *", "@daily"]),
        select(vec!["UTC", "Europe/Berlin"]),
        0u64..=3_600_000,
    )
        .prop_map(|(expression, time_zone, jitter_ms)| {
            let times = Times::Cron { expression: expression.to_owned(), time_zone: time_zone.to_owned() };
            (times, Duration::from_millis(jitter_ms))
        });
    let every = (1_000u64..=365 * 86_400_000, 0u64..3_600_000).prop_map(|(every_ms, jitter_ms)| {
        (Times::Every(Duration::from_millis(every_ms)), Duration::from_millis(jitter_ms % every_ms))
    });
    let schedule = (
        prop_oneof![cron, every],
        select(vec![Missed::Skip, Missed::One, Missed::All]),
        select(vec![Overlap::Skip, Overlap::Allow]),
    );
    prop_oneof![
        Just(None),
        vec(route, 1..3).prop_map(|routes| Some(Trigger::Http { routes })),
        queues.prop_map(|queues| Some(Trigger::Queue { queues })),
        schedule.prop_map(|((times, jitter), missed, overlap)| {
            Some(Trigger::Schedule(Schedule { times, jitter, missed, overlap }))
        }),
        select(vec![Run::Always, Run::Release, Run::Never]).prop_map(|run| Some(Trigger::Command { run })),
    ]
}

fn grants() -> impl Strategy<Value = Grants> {
    let dir = (path(), select(vec![(false, None), (true, None), (true, Some(1 << 20))]));
    let outbound = (select(vec![None, Some("http"), Some("https")]), host(), 1u16..)
        .prop_map(|(scheme, host, port)| Outbound { scheme: scheme.map(str::to_owned), host, port });
    let env = btree_map("[A-Za-z_. \"ä${}-]{1,6}", text(), 0..4);
    (env, vec(dir, 0..3), vec(outbound, 0..3), any::<bool>(), proptest::collection::btree_set(name(), 0..3))
        .prop_map(|(env, dirs, outbound, network_all, enqueue)| Grants {
            env: env.into_iter().map(|(name, value)| EnvVar { name, value, secret: false }).collect(),
            dirs: dirs
                .into_iter()
                .enumerate()
                .map(|(at, (host, (writable, bytes_max)))| DirGrant {
                    host,
                    guest: format!("/${{{at}}}"),
                    writable,
                    bytes_max,
                })
                .collect(),
            outbound,
            network_all,
            enqueue: enqueue.into_iter().collect(),
        })
}

fn process() -> impl Strategy<Value = ProcessType> {
    let limits = (
        65_536u64..=4 << 30,
        option::of(duration()),
        option::of(0u32..=1_000_000),
        duration(),
        (1u32..=1000, vec((0u64..=7 * 86_400_000).prop_map(Duration::from_millis), 0..4)),
        option::of(0u64..=1 << 40),
        1u64 << 10..=1 << 30,
    );
    let isolation = prop_oneof![Just(Isolation::Call), Just(Isolation::Instance)];
    let isolation = (option::of(isolation), option::of(1u32..=10_000), 1u32..=1_000);
    let calls = (option::of(1u64..=1 << 30), option::of("/[a-z.~?=&]{0,8}(%2[fF])?"));
    let life = (option::of(duration()), isolation, calls, option::of(age()));
    let component = (path(), option::of("[a-z $(){}&;-]{1,12}"), any::<bool>(), any::<bool>());
    (name(), component, vec(text(), 0..3), 0u32..=100_000, trigger(), limits, life, grants()).prop_map(
        |(
            name,
            (component, build, trust_cwasm, missing_imports_trap),
            args,
            count,
            trigger,
            limits,
            life,
            grants,
        )| {
            let (memory_bytes_max, timeout, backlog, queue_timeout, tries, body_bytes_max, max_log) = limits;
            let (attempts, backoff) = tries;
            let (cpu, (isolation, concurrency, weight), (max_calls, ready), max_age) = life;
            let (attempts, backoff) = match trigger {
                Some(Trigger::Queue { .. }) => (attempts, backoff),
                _ => (25, vec![]),
            };
            let ready = match trigger {
                None | Some(Trigger::Http { .. }) => ready,
                _ => None,
            };
            ProcessType {
                name,
                component,
                build,
                trust_cwasm,
                missing_imports_trap,
                args,
                count,
                trigger,
                memory_bytes_max,
                timeout,
                cpu,
                weight,
                concurrency,
                isolation,
                max_calls,
                max_age,
                backlog,
                queue_timeout,
                body_bytes_max,
                log_bytes_per_second: max_log,
                ready,
                attempts,
                backoff,
                grants,
            }
        },
    )
}

/// Names and routes are unique in a formation: of several that are equal, the first stays.
fn without_repetition(mut processes: Vec<ProcessType>) -> Vec<ProcessType> {
    let (mut names, mut seen) = (BTreeSet::new(), BTreeSet::new());
    processes.retain(|process| names.insert(process.name.clone()));
    for process in &mut processes {
        if let Some(Trigger::Http { routes }) = &mut process.trigger {
            routes.retain(|route| seen.insert(route.clone()));
            if routes.is_empty() {
                process.trigger = None;
            }
        }
    }
    processes
}

fn listen() -> impl Strategy<Value = Listen> {
    prop_oneof![
        select(vec!["127.0.0.1:8080", "[::1]:0", "localhost:80"])
            .prop_map(|address| Listen::Tcp(address.to_owned())),
        path()
            .prop_filter("the system takes no longer one", |path| path.as_os_str().len() <= 107)
            .prop_map(Listen::Unix),
        option::of("[a-z]{1,5}").prop_map(Listen::HandedOver),
    ]
}

fn http() -> impl Strategy<Value = Http> {
    let files = (path(), path()).prop_map(|(cert, key)| CertificateFiles { cert, key });
    let tls = (vec(listen(), 1..3), vec(files, 1..3))
        .prop_map(|(listen, certificates)| Tls { listen, certificates });
    let networks = select(vec!["10.0.0.0/8", "192.0.2.1/32", "fd00::/8"]);
    let trusted = (vec(networks.prop_map(|network| network.parse().unwrap()), 0..3), any::<bool>())
        .prop_map(|(networks, unix)| TrustedProxies { networks, unix });
    let access_log = select(vec![AccessLog::Off, AccessLog::Text, AccessLog::Json]);
    let timeouts = [(); 3].map(|()| (1u64..=7 * 86_400_000).prop_map(Duration::from_millis));
    let bounds = (8_192u32..=1 << 20, 1u32..=1_000_000, 1u32..=1_000_000, 1u32..=10_000, 0u32..=0o777);
    let places =
        (vec(listen(), 0..3), option::of(tls)).prop_filter("a place is named once", |(listen, tls)| {
            let places = listen.iter().chain(tls.iter().flat_map(|tls| &tls.listen));
            // Port 0 is another one each time.
            let places: Vec<_> = places.filter(|place| place.to_string() != "[::1]:0").collect();
            places.iter().enumerate().all(|(at, place)| !places[..at].contains(place))
        });
    (places, timeouts, bounds, trusted, access_log).prop_map(
        |((listen, tls), timeouts, bounds, trusted_proxies, access_log)| {
            let [header_timeout, idle_timeout, body_timeout] = timeouts;
            let (header_bytes_max, connections_max, connections_per_address_max, streams_max, socket_mode) =
                bounds;
            let listen = if listen.is_empty() && tls.is_none() { Http::default().listen } else { listen };
            Http {
                listen,
                socket_mode,
                tls,
                header_timeout,
                idle_timeout,
                body_timeout,
                header_bytes_max,
                connections_max,
                connections_per_address_max,
                streams_max,
                trusted_proxies,
                access_log,
            }
        },
    )
}

/// Places that `[http]` has none of.
fn health() -> impl Strategy<Value = Option<Health>> {
    let places = prop_oneof![
        Just(Listen::Tcp("127.0.0.1:9090".to_owned())),
        Just(Listen::Tcp("[::1]:0".to_owned())),
        Just(Listen::HandedOver(Some("probes".to_owned()))),
    ];
    option::of(places.prop_map(|place| Health { listen: vec![place] }))
}

/// Places that neither `[http]` nor `[health]` has. Where it has no certificates of its own, those of `[http]` are added.
fn admin() -> impl Strategy<Value = Option<Admin>> {
    let places = prop_oneof![
        Just(Listen::Tcp("127.0.0.1:9443".to_owned())),
        Just(Listen::Tcp("[::1]:0".to_owned())),
        Just(Listen::HandedOver(Some("admin-api".to_owned()))),
    ];
    let files = (path(), path()).prop_map(|(cert, key)| CertificateFiles { cert, key });
    let tls = option::of(vec(files, 1..3).prop_map(AdminTls::Own));
    let token = path().prop_map(|path| path.join("admin.token"));
    option::of((places, token, tls).prop_map(|(place, token, tls)| Admin { listen: vec![place], token, tls }))
}

fn shared_certificates(http: &Http, admin: Admin) -> Admin {
    let of_http = || http.tls.as_ref().map(|tls| AdminTls::OfHttp(tls.certificates.clone()));
    Admin { tls: admin.tls.or_else(of_http), ..admin }
}

fn formation() -> impl Strategy<Value = Formation> {
    let store = prop_oneof![Just(StoreUrl::Memory), path().prop_map(StoreUrl::Sqlite)];
    let queue = (
        option::of(1u64..=1_000_000_000),
        (2u64 << 20)..=(64 << 40),
        option::of(1u32..=1_000_000),
        option::of(1u32..=100_000),
    )
        .prop_map(|(max_depth, max_bytes, max_per_second, concurrency)| Queue {
            max_depth,
            max_bytes,
            max_per_second,
            concurrency,
        });
    let kept = || ((0u64..=3_650 * 86_400_000).prop_map(Duration::from_millis), 0u64..=1_000_000_000);
    let retention = (kept(), kept()).prop_map(|((done_for, done_max), (dead_for, dead_max))| Retention {
        done_for,
        done_max,
        dead_for,
        dead_max,
    });
    let compile = ((64u64 << 20)..=(1 << 40), 1u64..=24 * 3_600).prop_map(|(memory_bytes_max, cpu)| {
        CompileLimits { memory_bytes_max, cpu: Duration::from_secs(cpu) }
    });
    let times = (duration(), duration(), 1u32..=1_000);
    let top = ("[a-z${}\"'\\\\ ä]{1,12}", path(), option::of(1u32..=100_000), times);
    (
        top,
        (http(), health(), admin()),
        (store, retention, compile),
        btree_map(name(), queue, 0..3),
        vec(process(), 1..4),
    )
        .prop_map(
            |(
                (name, state_dir, max_instances, (grace, drain_delay, keep_releases)),
                (http, health, admin),
                (store, retention, compile),
                queues,
                processes,
            )| Formation {
                name,
                file: "/srv/shop/formation.toml".into(),
                state_dir,
                max_instances,
                grace,
                drain_delay,
                admin: admin.map(|admin| shared_certificates(&http, admin)),
                http,
                health,
                store,
                keep_releases,
                retention,
                compile,
                queues,
                processes: without_repetition(processes),
                secret_files: vec![],
                written: Written::default(),
                source: Source::default(),
            },
        )
}
