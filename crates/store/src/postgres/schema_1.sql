-- Version 1. Times are milliseconds since 1970 UTC by this server's clock: to_timestamp(run_at / 1000.0) reads them.
-- The tables are those of the SQLite store, without its triggers. docs/store.md describes them.

-- Rows of a queue change three times and go: pages keep room for that, and vacuum comes early.
CREATE TABLE jobs (
  id             bigint   PRIMARY KEY,
  queue          text     COLLATE "C" NOT NULL,
  state          text     COLLATE "C" NOT NULL CHECK (state IN ('scheduled', 'available', 'leased', 'retrying',
                                                                'done', 'dead', 'cancelled')),
  priority       smallint NOT NULL,
  unique_key     text     COLLATE "C",
  unique_scope   text     CHECK (unique_scope IN ('waiting', 'running', 'for')),
  enqueued_at    bigint   NOT NULL,
  run_at         bigint   NOT NULL,
  attempt        integer  NOT NULL DEFAULT 0,
  attempts_asked integer,
  attempts_max   integer,
  crashes        integer  NOT NULL DEFAULT 0,
  claim          bigint   NOT NULL DEFAULT 0,
  alone          boolean  NOT NULL DEFAULT false,
  lease_owner    text,
  lease_until    bigint,
  started_at     bigint,
  ended_at       bigint,
  last_error     text,
  -- Its part of queues.waiting_bytes, and the length of its payload.
  bytes          bigint   NOT NULL,
  payload_bytes  integer  NOT NULL
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0,
        autovacuum_analyze_scale_factor = 0.05);

-- Hosts take ids before they insert jobs, so that a job whose commit was not answered can be looked for.
CREATE SEQUENCE job_ids AS bigint OWNED BY jobs.id;

-- Which job is next?
CREATE INDEX jobs_available ON jobs (queue, priority DESC, run_at, id) WHERE state = 'available';
-- Which jobs have become due?
CREATE INDEX jobs_waiting ON jobs (queue, run_at) WHERE state IN ('scheduled', 'retrying');
-- Which leases ran out?
CREATE INDEX jobs_leased ON jobs (queue, lease_until) WHERE state = 'leased';
-- Which jobs have been kept for long enough?
CREATE INDEX jobs_finished ON jobs (ended_at) WHERE state IN ('done', 'cancelled');
CREATE INDEX jobs_dead ON jobs (ended_at) WHERE state = 'dead';
-- Which jobs have or had this key?
CREATE INDEX jobs_keyed ON jobs (unique_key, id) WHERE unique_key IS NOT NULL;
-- Which jobs are in this state? Only for states that a job that goes well never sees.
CREATE INDEX jobs_set_aside ON jobs (state, queue, id) WHERE state IN ('scheduled', 'retrying', 'dead', 'cancelled');

CREATE TABLE payloads (
  job_id       bigint PRIMARY KEY,
  content_type text   NOT NULL,
  -- A JSON array of [name, value], or null for none.
  metadata     text,
  payload      bytea  NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- How many jobs of each queue are in each state. A transaction that changes jobs changes these last, in the order of the
-- names, by differences: the rows are locked while it commits and no longer, and two transactions never wait for each other.
CREATE TABLE queues (
  queue         text    COLLATE "C" PRIMARY KEY,
  scheduled     bigint  NOT NULL DEFAULT 0,
  available     bigint  NOT NULL DEFAULT 0,
  leased        bigint  NOT NULL DEFAULT 0,
  retrying      bigint  NOT NULL DEFAULT 0,
  done          bigint  NOT NULL DEFAULT 0,
  dead          bigint  NOT NULL DEFAULT 0,
  cancelled     bigint  NOT NULL DEFAULT 0,
  waiting_bytes bigint  NOT NULL DEFAULT 0,
  paused        boolean NOT NULL DEFAULT false
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE unique_keys (
  queue      text   COLLATE "C" NOT NULL,
  key        text   COLLATE "C" NOT NULL,
  job_id     bigint NOT NULL,
  -- Null: until the job's end, or the begin of its call, frees it.
  expires_at bigint,
  PRIMARY KEY (queue, key)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
-- Which keys have expired?
CREATE INDEX unique_keys_expiring ON unique_keys (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE attempts (
  job_id     bigint  NOT NULL,
  claim      bigint  NOT NULL,
  attempt    integer NOT NULL,
  owner      text    NOT NULL,
  started_at bigint,
  ended_at   bigint  NOT NULL,
  outcome    text    NOT NULL CHECK (outcome IN ('failed', 'crashed', 'released', 'interrupted', 'lease-lost',
                                                 'cancelled')),
  error      text,
  PRIMARY KEY (job_id, claim)
);

CREATE TABLE ticks (
  schedule   text    COLLATE "C" NOT NULL,
  nominal    bigint  NOT NULL,
  manual     boolean NOT NULL,
  owner      text    NOT NULL,
  started_at bigint  NOT NULL,
  ended_at   bigint,
  result     text    NOT NULL DEFAULT 'running'
                     CHECK (result IN ('running', 'done', 'failed', 'skipped', 'interrupted')),
  error      text,
  PRIMARY KEY (schedule, nominal)
);

CREATE TABLE schedules (
  schedule text   COLLATE "C" PRIMARY KEY,
  nominal  bigint NOT NULL,
  times    text
);

CREATE TABLE counts (
  process_type text   COLLATE "C" PRIMARY KEY,
  count        bigint NOT NULL CHECK (count >= 0)
);

CREATE TABLE releases (
  number      bigint  PRIMARY KEY,
  state       text    NOT NULL CHECK (state IN ('pending', 'live', 'replaced', 'failed')),
  author      text    NOT NULL,
  of_file     boolean NOT NULL,
  created_at  bigint  NOT NULL,
  live_at     bigint,
  why         text,
  -- Texts of files may have zero bytes, which text can't: convert_from(formation, 'UTF8') reads one without.
  fingerprint bytea   NOT NULL,
  formation   bytea   NOT NULL,
  dotenv      bytea
);
-- Which one is live? At most one is.
CREATE UNIQUE INDEX releases_live ON releases (state) WHERE state = 'live';

CREATE TABLE release_components (
  number  bigint NOT NULL REFERENCES releases ON DELETE CASCADE,
  process text   COLLATE "C" NOT NULL,
  place   integer NOT NULL,
  digest  text   COLLATE "C" NOT NULL,
  file    text   NOT NULL,
  bytes   bigint NOT NULL,
  PRIMARY KEY (number, process)
);

CREATE TABLE members (
  -- The hosts that share this schema, by heartbeats. Ages are told by this server's clock alone.
  host    text    COLLATE "C" PRIMARY KEY,
  boot    text    NOT NULL,
  place   text    NOT NULL,
  name    text    NOT NULL,
  version text    NOT NULL,
  state   text    NOT NULL CHECK (state IN ('starting', 'joined', 'draining')),
  said    text    NOT NULL,
  shown   text    NOT NULL,
  seen    bigint  NOT NULL
) WITH (fillfactor = 30);

CREATE TABLE deploy (
  -- The deploy that is under way, if its host is there. One row at most.
  one     boolean PRIMARY KEY DEFAULT true CHECK (one),
  release bigint  NOT NULL,
  host    text    NOT NULL,
  boot    text    NOT NULL
);

CREATE TABLE components (
  -- The bytes of components that hosts hand to each other.
  digest text  COLLATE "C" PRIMARY KEY,
  bytes  bytea NOT NULL
);
