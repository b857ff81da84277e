-- Version 1. Times are milliseconds since 1970 UTC: datetime(run_at / 1000, 'unixepoch') reads them.
-- Each table's notes stand inside it, so that `.schema` in sqlite3 shows them.

CREATE TABLE jobs (
  -- The part of a job that changes. The bytes of its producer are in payloads: a megabyte of payload isn't rewritten
  -- each time that the state changes.

  -- Rises, and is never used again: hence AUTOINCREMENT.
  id             INTEGER PRIMARY KEY AUTOINCREMENT,
  queue          TEXT    NOT NULL,
  -- Text, since people read this table. A scheduled or retrying job whose run_at has passed is as good as available;
  -- the next claim that looks at its queue says so here.
  state          TEXT    NOT NULL CHECK (state IN ('scheduled', 'available', 'leased', 'retrying',
                                                   'done', 'dead', 'cancelled')),
  -- Higher runs earlier.
  priority       INTEGER NOT NULL DEFAULT 0,
  -- No two jobs of a queue that haven't ended have the same one.
  unique_key     TEXT,
  enqueued_at    INTEGER NOT NULL,
  -- When it is or was due.
  run_at         INTEGER NOT NULL,
  -- Tries begun so far.
  attempt        INTEGER NOT NULL DEFAULT 0,
  -- Tries at most: as the producer said (null: whatever the worker says), and as the last claim resolved it.
  attempts_asked INTEGER,
  attempts_max   INTEGER,
  -- How often it ended its instance.
  crashes        INTEGER NOT NULL DEFAULT 0,
  -- How often it was claimed: the fencing token. An answer that brings an older number is refused.
  claim          INTEGER NOT NULL DEFAULT 0,
  -- The host that has it, and until when unless the lease is renewed. Null unless leased.
  lease_owner    TEXT,
  lease_until    INTEGER,
  -- When it was done, died or was cancelled.
  ended_at       INTEGER,
  -- The text of the last failed attempt.
  last_error     TEXT
) STRICT;

CREATE TABLE payloads (
  -- The bytes of a job's producer. Written once.
  job_id       INTEGER PRIMARY KEY,
  content_type TEXT NOT NULL,
  -- A JSON array of [name, value], or null for none.
  metadata     TEXT,
  payload      BLOB NOT NULL
) STRICT;

CREATE TABLE queues (
  -- How many jobs of each queue are in each state: max_depth and retention by count need it at once, with a million
  -- jobs too. The triggers below keep it, in whatever way jobs is changed.
  queue     TEXT PRIMARY KEY,
  scheduled INTEGER NOT NULL DEFAULT 0,
  available INTEGER NOT NULL DEFAULT 0,
  leased    INTEGER NOT NULL DEFAULT 0,
  retrying  INTEGER NOT NULL DEFAULT 0,
  done      INTEGER NOT NULL DEFAULT 0,
  dead      INTEGER NOT NULL DEFAULT 0,
  cancelled INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- Each question has an index that holds the jobs it is about and no others: claims don't see what is done or not
-- due, however much there is of it.

-- Which job is next?
CREATE INDEX jobs_available ON jobs (queue, priority DESC, run_at, id) WHERE state = 'available';
-- Which jobs have become due?
CREATE INDEX jobs_waiting ON jobs (queue, run_at) WHERE state IN ('scheduled', 'retrying');
-- Which leases ran out?
CREATE INDEX jobs_leased ON jobs (queue, lease_until) WHERE state = 'leased';
-- Which job holds this key?
CREATE UNIQUE INDEX jobs_unique ON jobs (queue, unique_key)
  WHERE unique_key IS NOT NULL AND state IN ('scheduled', 'available', 'leased', 'retrying');
-- Which jobs have been kept for long enough?
CREATE INDEX jobs_finished ON jobs (ended_at) WHERE state IN ('done', 'cancelled');
CREATE INDEX jobs_dead ON jobs (ended_at) WHERE state = 'dead';

CREATE TRIGGER jobs_inserted AFTER INSERT ON jobs BEGIN
  INSERT INTO queues (queue, scheduled, available, leased, retrying, done, dead, cancelled)
  VALUES (NEW.queue, NEW.state = 'scheduled', NEW.state = 'available', NEW.state = 'leased', NEW.state = 'retrying',
          NEW.state = 'done', NEW.state = 'dead', NEW.state = 'cancelled')
  ON CONFLICT (queue) DO UPDATE SET
    scheduled = scheduled + excluded.scheduled, available = available + excluded.available,
    leased = leased + excluded.leased, retrying = retrying + excluded.retrying,
    done = done + excluded.done, dead = dead + excluded.dead, cancelled = cancelled + excluded.cancelled;
END;

CREATE TRIGGER jobs_moved AFTER UPDATE OF state ON jobs BEGIN
  UPDATE queues SET
    scheduled = scheduled + (NEW.state = 'scheduled') - (OLD.state = 'scheduled'),
    available = available + (NEW.state = 'available') - (OLD.state = 'available'),
    leased = leased + (NEW.state = 'leased') - (OLD.state = 'leased'),
    retrying = retrying + (NEW.state = 'retrying') - (OLD.state = 'retrying'),
    done = done + (NEW.state = 'done') - (OLD.state = 'done'),
    dead = dead + (NEW.state = 'dead') - (OLD.state = 'dead'),
    cancelled = cancelled + (NEW.state = 'cancelled') - (OLD.state = 'cancelled')
  WHERE queue = NEW.queue;
END;

CREATE TRIGGER jobs_deleted AFTER DELETE ON jobs BEGIN
  DELETE FROM payloads WHERE job_id = OLD.id;
  UPDATE queues SET
    scheduled = scheduled - (OLD.state = 'scheduled'), available = available - (OLD.state = 'available'),
    leased = leased - (OLD.state = 'leased'), retrying = retrying - (OLD.state = 'retrying'),
    done = done - (OLD.state = 'done'), dead = dead - (OLD.state = 'dead'),
    cancelled = cancelled - (OLD.state = 'cancelled')
  WHERE queue = OLD.queue;
END;

CREATE TABLE ticks (
  -- The times of schedules that were taken, the last 1,000 of each. The primary key is what makes each happen once.
  schedule   TEXT    NOT NULL,
  nominal    INTEGER NOT NULL,
  -- 1 where a person asked for it.
  manual     INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  ended_at   INTEGER,
  error      TEXT,
  PRIMARY KEY (schedule, nominal)
) STRICT, WITHOUT ROWID;

CREATE TABLE schedules (
  -- How far each schedule has come: the last time that was taken or passed over.
  schedule TEXT PRIMARY KEY,
  nominal  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE counts (
  -- How many instances a person asked for, where it isn't what the formation says.
  process_type TEXT PRIMARY KEY,
  count        INTEGER NOT NULL CHECK (count >= 0)
) STRICT, WITHOUT ROWID;
