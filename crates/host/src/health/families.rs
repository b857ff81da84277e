//! The metrics that there are. docs/metrics.md describes each; a test compares it with what is served.

/// One metric, with all of its series.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) static $constant: Family = Family {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// All of them.
        #[cfg(test)]
        pub(super) const ALL: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    BUILD = Gauge "wasmhost_build_info" ["version"] "1, with the version of the host.";
    READY = Gauge "wasmhost_ready" [] "Whether /readyz says 200: the host has started, and doesn't drain.";
    FAILURES = Counter "wasmhost_scrape_failures_total" ["part"]
        "Scrapes that lack the series of a part of the host that didn't answer in time.";

    INSTANCES = Gauge "wasmhost_instances" ["type", "state"] "Instances by their state.";
    DESIRED = Gauge "wasmhost_instances_desired" ["type"] "Instances that there should be.";
    STARTS = Counter "wasmhost_instance_starts_total" ["type"] "Instances that were started.";
    RESTARTS = Counter "wasmhost_instance_restarts_total" ["type", "cause"]
        "Instances that were started again, since the one before crashed, exited or didn't start.";
    RECYCLES = Counter "wasmhost_instance_recycles_total" ["type"]
        "Instances that were replaced as it was planned.";
    CPU = Counter "wasmhost_cpu_seconds_total" ["type"] "CPU time that guests have used.";
    MEMORY = Gauge "wasmhost_memory_bytes" ["type"] "Linear memories and tables of the instances that there are.";
    CALLS = Gauge "wasmhost_calls" ["type"] "Calls under way: requests, jobs, ticks, and runs of main.";
    WAITING = Gauge "wasmhost_calls_waiting" ["type"] "Calls that wait for an instance.";
    CALL_WAIT = Histogram "wasmhost_call_wait_seconds" ["type"]
        "Time that requests and ticks spent in the line until they had an instance, or gave up.";

    REQUESTS_TOTAL = Counter "wasmhost_http_requests_total" ["type", "status", "code"]
        "Requests that are over, by the class of their status and the host's own code.";
    REQUEST_DURATION = Histogram "wasmhost_http_request_duration_seconds" ["type"]
        "Time from a request's head until its answer was through, or its client had gone.";
    RECEIVED = Counter "wasmhost_http_request_body_bytes_total" ["type"] "Bytes of requests' bodies.";
    SENT = Counter "wasmhost_http_response_body_bytes_total" ["type"] "Bytes of answers' bodies.";
    CONNECTIONS = Gauge "wasmhost_http_connections_open" [] "Connections of the ingress that are open.";
    ACCEPTED = Counter "wasmhost_http_connections_accepted_total" [] "Connections that the ingress has served.";
    CROWDED = Counter "wasmhost_http_connections_refused_total" []
        "Connections that were closed at once, since their address had too many.";

    JOBS_TOTAL = Counter "wasmhost_jobs_total" ["queue", "result"] "Attempts of jobs that are over.";
    ENQUEUED = Counter "wasmhost_jobs_enqueued_total" ["queue"] "Jobs that were put on a queue by way of this host.";
    JOB_DURATION = Histogram "wasmhost_job_duration_seconds" ["queue"] "Time that calls with jobs took.";
    CLAIM_DURATION = Histogram "wasmhost_job_claim_duration_seconds" ["type"]
        "Time until the store answered a claim of jobs.";
    QUEUE_JOBS = Gauge "wasmhost_queue_jobs" ["queue", "state"] "Jobs in the store by their state.";
    QUEUE_OLDEST = Gauge "wasmhost_queue_oldest_job_age_seconds" ["queue"]
        "How long the oldest job has been due that waits to be claimed; 0 where none waits.";
    QUEUE_PAUSED = Gauge "wasmhost_queue_paused" ["queue"] "Whether a person has paused the queue.";

    TICKS_TOTAL = Counter "wasmhost_ticks_total" ["type", "result"] "Ticks that are over.";
    TICK_LATENESS = Histogram "wasmhost_tick_lateness_seconds" ["type"]
        "How late ticks of the schedule began.";

    STORE_OPERATIONS = Counter "wasmhost_store_operations_total" [] "Writing operations that the store has answered.";
    STORE_COMMITS = Histogram "wasmhost_store_commit_duration_seconds" []
        "Time that commits of the store took, each for all operations that waited.";
    LOADS = Counter "wasmhost_components_loaded_total" ["from"]
        "Components whose compiled code was had from this process, from the cache's directory, or from the compiler.";
    COMPILE_SECONDS = Counter "wasmhost_compile_seconds_total" [] "Time that compiling took.";
    COMPILE_FAILURES = Counter "wasmhost_compile_failures_total" [] "Components that could not be compiled.";

    REFUSED = Counter "wasmhost_grants_refused_total" ["type", "grant"]
        "Attempts of guests at what they aren't granted.";
    LINES_DROPPED = Counter "wasmhost_log_lines_dropped_total" ["type", "reason"]
        "Lines of guests that were dropped.";
    RELEASE = Gauge "wasmhost_release_number" [] "The number of the live release.";
    CANARY = Gauge "wasmhost_canary_ratio" [] "The share of the release on canary; 0 where none is.";
    DEPLOYS = Counter "wasmhost_deploys_total" ["result"] "Deploys and rollbacks that are over.";

    SPANS = Counter "wasmhost_otlp_spans_total" ["result"] "Spans that are over, by what came of them.";
    EXPORT_FAILURES = Counter "wasmhost_otlp_export_failures_total" ["signal"]
        "Batches of spans, and metrics, that the collector has not taken.";

    PROCESS_CPU = Counter "process_cpu_seconds_total" [] "CPU time of the host's process.";
    PROCESS_MEMORY = Gauge "process_resident_memory_bytes" [] "Resident memory of the host's process.";
    PROCESS_FILES = Gauge "process_open_fds" [] "Open files of the host's process.";
    PROCESS_FILES_MAX = Gauge "process_max_fds" [] "The most open files that it may have.";
    PROCESS_START = Gauge "process_start_time_seconds" [] "When the host started, in seconds since 1970.";
}
