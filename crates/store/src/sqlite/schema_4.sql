-- Version 4: releases. docs/store.md describes all tables.

CREATE TABLE releases (
  -- The versions of the formation that were to be live, or are. Numbers are never used again: hence AUTOINCREMENT.
  number      INTEGER PRIMARY KEY AUTOINCREMENT,
  state       TEXT    NOT NULL CHECK (state IN ('pending', 'live', 'replaced', 'failed')),
  -- The act that made it: 'start', 'deploy', 'rollback to v3'.
  author      TEXT    NOT NULL,
  -- 1: it was made of the formation's file. 0: it was made of an older release.
  of_file     INTEGER NOT NULL CHECK (of_file IN (0, 1)),
  created_at  INTEGER NOT NULL,
  -- Null: it never was live.
  live_at     INTEGER,
  -- Why it failed.
  why         TEXT,
  -- Differs wherever the release does.
  fingerprint TEXT    NOT NULL,
  formation   TEXT    NOT NULL,
  -- The .env beside the formation. Null: there was none.
  dotenv      TEXT
) STRICT;

-- Which one is live? At most one is.
CREATE UNIQUE INDEX releases_live ON releases (state) WHERE state = 'live';

CREATE TABLE release_components (
  -- The component of each type in a release.
  number  INTEGER NOT NULL,
  process TEXT    NOT NULL,
  -- Its place in the list of components.
  place   INTEGER NOT NULL,
  -- SHA-256 of its bytes, hexadecimal.
  digest  TEXT    NOT NULL,
  -- The file that the formation names.
  file    TEXT    NOT NULL,
  bytes   INTEGER NOT NULL,
  PRIMARY KEY (number, process)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER releases_deleted AFTER DELETE ON releases BEGIN
  DELETE FROM release_components WHERE number = OLD.number;
END;
