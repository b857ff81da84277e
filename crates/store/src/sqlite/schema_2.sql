-- Version 2: pauses, scopes of unique keys, the history of attempts, results of ticks. docs/store.md describes all
-- tables.

ALTER TABLE queues ADD COLUMN paused INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1))
  /* 1: nothing is claimed from it. The row is kept then even where it has no jobs. */;

ALTER TABLE jobs ADD COLUMN unique_scope TEXT CHECK (unique_scope IN ('waiting', 'running', 'for'))
  /* How long the key is held: until the first claim, until the end, or for a time. Null without a key. */;
ALTER TABLE jobs ADD COLUMN started_at INTEGER /* When its latest attempt began. */;

CREATE TABLE unique_keys (
  -- The holder of each key. It is taken when the job is enqueued; the triggers below free it.
  queue      TEXT    NOT NULL,
  key        TEXT    NOT NULL,
  -- May have been deleted since, where there is an expiry.
  job_id     INTEGER NOT NULL,
  -- Null: until a trigger frees it. Otherwise it is as good as free once that time has come, and pruned.
  expires_at INTEGER,
  PRIMARY KEY (queue, key)
) STRICT, WITHOUT ROWID;

INSERT INTO unique_keys (queue, key, job_id)
  SELECT queue, unique_key, id FROM jobs
  WHERE unique_key IS NOT NULL AND state IN ('scheduled', 'available', 'leased', 'retrying');
DROP INDEX jobs_unique;
UPDATE jobs SET unique_scope = 'running' WHERE unique_key IS NOT NULL;

-- Which keys have expired?
CREATE INDEX unique_keys_expiring ON unique_keys (expires_at) WHERE expires_at IS NOT NULL;
-- Which jobs have or had this key?
CREATE INDEX jobs_keyed ON jobs (unique_key, id) WHERE unique_key IS NOT NULL;
-- Which jobs are in this state? Only for states that a job that goes well never sees: those of the others would cost
-- each job something (sqlite/list.rs).
CREATE INDEX jobs_set_aside ON jobs (state, queue, id, run_at)
  WHERE (state = 'scheduled' OR state = 'retrying' OR state = 'dead' OR state = 'cancelled');

CREATE TRIGGER jobs_freed_key AFTER UPDATE OF state ON jobs
WHEN NEW.unique_scope IN ('waiting', 'running')
  AND (NEW.state = 'done' OR NEW.state = 'dead' OR NEW.state = 'cancelled'
       OR (NEW.state = 'leased' AND NEW.unique_scope = 'waiting'))
BEGIN
  DELETE FROM unique_keys WHERE queue = NEW.queue AND key = NEW.unique_key AND job_id = NEW.id;
END;

CREATE TRIGGER jobs_deleted_key AFTER DELETE ON jobs
WHEN OLD.unique_scope IN ('waiting', 'running')
BEGIN
  DELETE FROM unique_keys WHERE queue = OLD.queue AND key = OLD.unique_key AND job_id = OLD.id;
END;

CREATE TABLE attempts (
  -- Attempts that didn't end well, the latest 25 of each job. One that is under way or did the job is in jobs:
  -- from started_at to ended_at.
  job_id     INTEGER NOT NULL,
  -- The job's claim number in it.
  claim      INTEGER NOT NULL,
  attempt    INTEGER NOT NULL,
  -- Which boot of which host had it.
  owner      TEXT    NOT NULL,
  started_at INTEGER,
  ended_at   INTEGER NOT NULL,
  outcome    TEXT    NOT NULL CHECK (outcome IN ('failed', 'crashed', 'released', 'interrupted', 'lease-lost',
                                                 'cancelled')),
  error      TEXT,
  PRIMARY KEY (job_id, claim)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER jobs_deleted_attempts AFTER DELETE ON jobs BEGIN
  DELETE FROM attempts WHERE job_id = OLD.id;
END;

ALTER TABLE ticks ADD COLUMN owner TEXT NOT NULL DEFAULT '' /* Which boot of which host took it. */;
ALTER TABLE ticks ADD COLUMN result TEXT NOT NULL DEFAULT 'running'
  CHECK (result IN ('running', 'done', 'failed', 'skipped', 'interrupted'));
-- A file of version 1 has one host, which isn't running now.
UPDATE ticks SET result = CASE WHEN ended_at IS NULL THEN 'interrupted'
                               WHEN error IS NULL THEN 'done'
                               WHEN error LIKE 'skipped:%' THEN 'skipped'
                               ELSE 'failed' END,
                 error = CASE WHEN ended_at IS NULL THEN 'its host stopped' ELSE error END;
