//! The text that `--help` of each verb has below its options: examples first, then what a person has to know. No line has more
//! than 80 characters.

pub(crate) const ALL: &str = "\
Examples:
  wasmhost run                   run formation.toml of this folder
  wasmhost run app.wasm          run one component, without a formation
  wasmhost scale web=10          change a count while it runs
  wasmhost logs -f web           follow what a type writes";

pub(crate) const RUN: &str = "\
Examples:
  wasmhost run
  wasmhost run shop/formation.toml
  wasmhost run app.wasm --listen 127.0.0.1:0 --env LOG=debug
  wasmhost run tool.wasm --dir . --env HOME -- --verbose input.txt

FILE is an app if it is WebAssembly (or called .wasm), else a formation.

An app that exports an http handler is served, with nothing granted but what
the options say. A command (a component, or a core WASI 0.1 module) is run
once: standard input, output and error are its own, and its exit code is this
program's; 134 if it trapped, 124 if --timeout ended it.

Guests' lines of a formation or a served app go to standard output (JSON
unless it is a terminal). The host's own lines go to standard error.
WASMHOST_LOG=debug shows more of them.

Components and core modules are kept compiled in ~/.cache/wasmhost/compiled,
or where WASMHOST_CACHE_DIR says; at most 1GiB of them, or what
WASMHOST_CACHE_SIZE says. WASMHOST_CACHE=off keeps none.

SIGTERM and SIGINT drain: calls under way finish within `grace`. A second
SIGINT ends them at once.
Exits with 0 after a drain, 124 if a call was cut off, 2 if the formation is
wrong, 3 if it can't start, 4 if a component is missing or can't be loaded.";

pub(crate) const CHECK: &str = "\
Examples:
  wasmhost check
  wasmhost check shop/formation.toml --json

Exits with 2 if the formation is wrong, 4 if a component is missing or can't
be used.";

pub(crate) const COMPILE: &str = "\
Examples:
  wasmhost compile web.wasm                 writes web.cwasm beside it
  wasmhost compile web.wasm -o dist/web.cwasm

A formation takes the file as `component` beside `trust_cwasm = true`:
compiled code runs outside of the sandbox, so take it only from where you
would take a program. Without this verb components are compiled when they are
first run, and kept.";

pub(crate) const PS: &str = "\
Examples:
  wasmhost ps
  wasmhost ps web                with how its last instance died
  wasmhost ps --watch            again each second, until q
  wasmhost ps --wait             as soon as the host serves, in a script
  wasmhost ps --json | jq '.types[] | {process, actual}'";

pub(crate) const SCALE: &str = "\
Examples:
  wasmhost scale web=10 worker+2 clock-1
  wasmhost scale                 prints the counts, as a line to paste back
  wasmhost scale --reset         goes back to the file's counts

All changes are made, or none. Counts that were set survive a restart of the
host.";

pub(crate) const LOGS: &str = "\
Examples:
  wasmhost logs                  the last 100 lines of all instances
  wasmhost logs -f web           a type's, and what it writes on
  wasmhost logs web.1 -n 20      the last 20 of one instance
  wasmhost logs --since 10m      all of the last ten minutes
  wasmhost logs --since 05:08 --until 05:10
  wasmhost logs host --level warn

Times are UTC. TIME is how long ago (10m), a time of day (05:08, the last time
that it was), or as RFC 3339 has it (2026-11-21T05:08:00Z).

The host keeps the last 10,000 lines of each type, or 4MiB of them.";

pub(crate) const TOP: &str = "\
Examples:
  wasmhost top

Keys: Up and Down select a type, Tab goes to its instances and to the queues,
+ - and s scale, r restarts, p pauses or resumes a queue, ? shows the rest,
q ends it.

Rates and times are of the last 5 seconds, CPU is of one processor.";

pub(crate) const DASHBOARD: &str = "\
Examples:
  wasmhost dashboard             opens it in the browser
  wasmhost dashboard --no-open   only prints the link
  ssh -L 4321:127.0.0.1:4321 server wasmhost dashboard --port 4321

The page is served on 127.0.0.1 by this program, which asks the host: it goes
with Ctrl-C. A link lets one browser in, once, within 15 minutes; Enter prints
another one. No other user of the machine, and no page on the web, can use it.";

pub(crate) const EVENTS: &str = "\
Examples:
  wasmhost events                all of them, until Ctrl-C
  wasmhost events --type web     those about a type
  wasmhost events --kind job,tick
  wasmhost events --json | jq 'select(.state == \"dead\")'

There are events from the moment on when somebody follows. One who reads more
slowly than they come misses some, and a line in their place says how many.
docs/events.md describes each kind.";

pub(crate) const RESTART: &str = "\
Examples:
  wasmhost restart web           each instance of a type
  wasmhost restart web.1         one of them

Each new instance serves before the one that it replaces leaves.";

pub(crate) const STOP: &str = "\
Examples:
  wasmhost stop
  wasmhost stop --timeout 5m

Calls under way may take as long as `grace` says.";

pub(crate) const TICK: &str = "\
Examples:
  wasmhost tick clock

Exits with 1 if the tick failed.";

pub(crate) const TICKS: &str = "\
Examples:
  wasmhost ticks
  wasmhost ticks clock -n 5
  wasmhost ticks --json | jq 'select(.result == \"failed\")'";

pub(crate) const COMPLETIONS: &str = "\
Examples:
  source <(wasmhost completions bash)            in ~/.bashrc
  source <(wasmhost completions zsh)             in ~/.zshrc
  wasmhost completions fish > ~/.config/fish/completions/wasmhost.fish

Types, instances, queues and releases are completed too: those of the host
that runs, or else those of the formation.";

pub(crate) const MAN: &str = "\
Examples:
  wasmhost man /usr/local/share/man/man1";

pub(crate) const ENQUEUE: &str = "\
Examples:
  wasmhost enqueue mail '{\"to\": \"ann\"}' --content-type application/json
  wasmhost enqueue mail --in 10m --unique ann --unique-for 1h < letter.txt
  wasmhost enqueue import --lines --from customers.ndjson

Prints the job's id once it is durable. With --lines each line that isn't
empty is a job of its own; they are enqueued by the thousand, as fast as the
queue's max_per_second allows, and a line that can't be enqueued ends it: what
came before it stays enqueued.";

pub(crate) const JOBS: &str = "\
Examples:
  wasmhost jobs ls --state dead
  wasmhost jobs show 42
  wasmhost jobs retry 42 43
  wasmhost jobs retry --queue mail           all dead jobs of the queue
  wasmhost jobs pause mail";

pub(crate) const JOBS_LS: &str = "\
Examples:
  wasmhost jobs ls
  wasmhost jobs ls --queue mail --state retrying,dead -n 10
  wasmhost jobs ls --json | jq -r .id";

pub(crate) const JOBS_SHOW: &str = "\
Examples:
  wasmhost jobs show 42
  wasmhost jobs show 42 --json | jq -r .payload";

pub(crate) const JOBS_RETRY: &str = "\
Examples:
  wasmhost jobs retry 42 43
  wasmhost jobs retry --queue mail           all dead jobs of the queue";

pub(crate) const JOBS_CANCEL: &str = "\
Examples:
  wasmhost jobs cancel 42
  wasmhost jobs cancel --queue mail --state scheduled";

pub(crate) const JOBS_DISCARD: &str = "\
Examples:
  wasmhost jobs discard 42
  wasmhost jobs discard --queue mail --state dead";

pub(crate) const JOBS_PAUSE: &str = "\
Examples:
  wasmhost jobs pause mail";

pub(crate) const JOBS_RESUME: &str = "\
Examples:
  wasmhost jobs resume mail";

pub(crate) const JOBS_STATS: &str = "\
Examples:
  wasmhost jobs stats
  wasmhost jobs stats --json | jq '.queues[] | {queue, dead}'";

pub(crate) const JOBS_WATCH: &str = "\
Examples:
  wasmhost jobs watch
  wasmhost jobs watch --every 5s --json

On a terminal q ends it.";

pub(crate) const JOBS_BACKUP: &str = "\
Examples:
  wasmhost jobs backup copy.db";
