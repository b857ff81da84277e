-- Version 3: which times a schedule's cursor is about, jobs that run alone, how much waits in each queue, and keys that
-- are held until a call begins. docs/store.md describes all tables.

ALTER TABLE schedules ADD COLUMN times TEXT
  /* The schedule that nominal is a time of: an expression and its zone, or an interval. Null: an older wasmhost wrote the row. */;

ALTER TABLE jobs ADD COLUMN alone INTEGER NOT NULL DEFAULT 0 CHECK (alone IN (0, 1))
  /* 1: it crashed together with others in one instance, and has an instance to itself from now on. */;
ALTER TABLE jobs ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0
  /* Its part of waiting_bytes: the bytes of its producer, and 256 for its rows. */;
ALTER TABLE queues ADD COLUMN waiting_bytes INTEGER NOT NULL DEFAULT 0
  /* The sum of bytes over its scheduled, available and retrying jobs. */;

UPDATE jobs SET bytes = 256 + coalesce(
  (SELECT octet_length(payload) + octet_length(content_type) + coalesce(octet_length(metadata), 0)
   FROM payloads WHERE job_id = id), 0);
UPDATE queues SET waiting_bytes = coalesce(
  (SELECT sum(bytes) FROM jobs
   WHERE jobs.queue = queues.queue AND state IN ('scheduled', 'available', 'retrying')), 0);

-- The triggers compare with OR: for a list of three SQLite makes a table, each time that they run.
DROP TRIGGER jobs_inserted;
CREATE TRIGGER jobs_inserted AFTER INSERT ON jobs BEGIN
  INSERT INTO queues (queue, scheduled, available, leased, retrying, done, dead, cancelled, waiting_bytes)
  VALUES (NEW.queue, NEW.state = 'scheduled', NEW.state = 'available', NEW.state = 'leased', NEW.state = 'retrying',
          NEW.state = 'done', NEW.state = 'dead', NEW.state = 'cancelled',
          NEW.bytes * (NEW.state = 'scheduled' OR NEW.state = 'available' OR NEW.state = 'retrying'))
  ON CONFLICT (queue) DO UPDATE SET
    scheduled = scheduled + excluded.scheduled, available = available + excluded.available,
    leased = leased + excluded.leased, retrying = retrying + excluded.retrying,
    done = done + excluded.done, dead = dead + excluded.dead, cancelled = cancelled + excluded.cancelled,
    waiting_bytes = waiting_bytes + excluded.waiting_bytes;
END;

DROP TRIGGER jobs_moved;
CREATE TRIGGER jobs_moved AFTER UPDATE OF state ON jobs BEGIN
  UPDATE queues SET
    scheduled = scheduled + (NEW.state = 'scheduled') - (OLD.state = 'scheduled'),
    available = available + (NEW.state = 'available') - (OLD.state = 'available'),
    leased = leased + (NEW.state = 'leased') - (OLD.state = 'leased'),
    retrying = retrying + (NEW.state = 'retrying') - (OLD.state = 'retrying'),
    done = done + (NEW.state = 'done') - (OLD.state = 'done'),
    dead = dead + (NEW.state = 'dead') - (OLD.state = 'dead'),
    cancelled = cancelled + (NEW.state = 'cancelled') - (OLD.state = 'cancelled'),
    waiting_bytes = waiting_bytes + NEW.bytes * (
      (NEW.state = 'scheduled' OR NEW.state = 'available' OR NEW.state = 'retrying')
      - (OLD.state = 'scheduled' OR OLD.state = 'available' OR OLD.state = 'retrying'))
  WHERE queue = NEW.queue;
END;

DROP TRIGGER jobs_deleted;
CREATE TRIGGER jobs_deleted AFTER DELETE ON jobs BEGIN
  DELETE FROM payloads WHERE job_id = OLD.id;
  UPDATE queues SET
    scheduled = scheduled - (OLD.state = 'scheduled'), available = available - (OLD.state = 'available'),
    leased = leased - (OLD.state = 'leased'), retrying = retrying - (OLD.state = 'retrying'),
    done = done - (OLD.state = 'done'), dead = dead - (OLD.state = 'dead'),
    cancelled = cancelled - (OLD.state = 'cancelled'),
    waiting_bytes = waiting_bytes
      - OLD.bytes * (OLD.state = 'scheduled' OR OLD.state = 'available' OR OLD.state = 'retrying')
  WHERE queue = OLD.queue;
END;

-- A key of scope `waiting` is freed as the call begins (sqlite/leases.rs): a job that is claimed may go back uncalled.
DROP TRIGGER jobs_freed_key;
CREATE TRIGGER jobs_freed_key AFTER UPDATE OF state ON jobs
WHEN NEW.unique_scope IN ('waiting', 'running')
  AND (NEW.state = 'done' OR NEW.state = 'dead' OR NEW.state = 'cancelled')
BEGIN
  DELETE FROM unique_keys WHERE queue = NEW.queue AND key = NEW.unique_key AND job_id = NEW.id;
END;

CREATE TABLE facts (
  -- Facts about the file itself. `copied_at`: it is a backup of that time, which no host has opened yet.
  name  TEXT    PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
