-- A lifetime: its identity, and the read model that lists are served from. `lid` names it inside this database, so
-- that no other row repeats 36 characters.
CREATE TABLE lifetimes (
  lid             INTEGER PRIMARY KEY,
  lifetime_id     TEXT    NOT NULL UNIQUE,
  tenant_id       TEXT    NOT NULL,
  graph_name      TEXT    NOT NULL,
  graph_version   TEXT    NOT NULL,
  graph_digest    TEXT    NOT NULL,
  status          TEXT    NOT NULL,
  status_seq      INTEGER NOT NULL,  -- the seq of the state that `status` was computed from
  reason          TEXT,
  labels          TEXT    NOT NULL,  -- a JSON object of strings
  idempotency_key TEXT,
  created_at      INTEGER NOT NULL,  -- all times: microseconds since 1970-01-01 UTC
  updated_at      INTEGER NOT NULL,
  finished_at     INTEGER
);

CREATE UNIQUE INDEX lifetimes_by_idempotency_key ON lifetimes (tenant_id, idempotency_key)
  WHERE idempotency_key IS NOT NULL;

CREATE INDEX lifetimes_by_tenant ON lifetimes (tenant_id);

CREATE INDEX lifetimes_by_status ON lifetimes (tenant_id, status);

-- Recovery and the sweeper walk the open ones of all tenants, which are few among many.
CREATE INDEX lifetimes_open ON lifetimes (lifetime_id) WHERE finished_at IS NULL;

-- The truth: what happened, in order, without gaps. Never updated. A table with a rowid on purpose: rows of all
-- lifetimes are added at its end, so a commit writes few pages, and a body of some kilobytes needs no overflow page
-- (clustered by (lid, seq) the same rows took 447 to 4,700 bytes where they take 424 to 2,100 here).
CREATE TABLE log (
  lid      INTEGER NOT NULL,
  seq      INTEGER NOT NULL,
  at       INTEGER NOT NULL,
  entry_id TEXT    NOT NULL,
  body     BLOB    NOT NULL,  -- tickwork.model.records.encode_entry
  UNIQUE (lid, seq),
  UNIQUE (lid, entry_id)
);

CREATE TABLE graphs (
  id         INTEGER PRIMARY KEY,
  tenant_id  TEXT    NOT NULL,
  name       TEXT    NOT NULL,
  version    TEXT    NOT NULL,
  digest     TEXT    NOT NULL,
  body       BLOB    NOT NULL,  -- canonical JSON
  source     TEXT    NOT NULL,
  created_at INTEGER NOT NULL,
  UNIQUE (tenant_id, name, version)
);

CREATE INDEX graphs_by_digest ON graphs (tenant_id, digest);

CREATE TABLE timers (
  lid      INTEGER NOT NULL,
  timer_id TEXT    NOT NULL,
  due      INTEGER NOT NULL,
  PRIMARY KEY (lid, timer_id)
) WITHOUT ROWID;

CREATE INDEX timers_by_due ON timers (due);

CREATE TABLE questions (
  lid       INTEGER NOT NULL,
  exec_id   TEXT    NOT NULL,
  tenant_id TEXT    NOT NULL,
  since     INTEGER NOT NULL,
  body      BLOB    NOT NULL,  -- a tickwork.model.lifetime.Question as msgpack
  PRIMARY KEY (lid, exec_id)
) WITHOUT ROWID;

CREATE INDEX questions_by_tenant ON questions (tenant_id, since);
