-- Every table of tenants is led by the tenant: no key tells one tenant what another has. Text is compared by its bytes.

-- A lifetime as it was started; never updated.
CREATE TABLE lifetimes (
  tenant_id       text COLLATE "C" NOT NULL,
  lifetime_id     text COLLATE "C" NOT NULL,
  graph_name      text   NOT NULL,
  graph_version   text   NOT NULL,
  graph_digest    text   NOT NULL,
  labels          text   NOT NULL,  -- a JSON object of strings
  label_lines     text   NOT NULL,  -- each label as the JSON of [name, value] between line feeds, to be searched for
  idempotency_key text COLLATE "C",
  created_at      bigint NOT NULL,  -- all times: microseconds since 1970-01-01 UTC
  PRIMARY KEY (tenant_id, lifetime_id)
);

CREATE UNIQUE INDEX lifetimes_by_idempotency_key ON lifetimes (tenant_id, idempotency_key)
  WHERE idempotency_key IS NOT NULL;

CREATE INDEX lifetimes_by_age ON lifetimes (tenant_id, created_at, lifetime_id);

-- How a lifetime stands: where its log is, and the read model that lists are served from. Whoever appends to the log
-- holds this row until the commit, so that seqs have no gaps. It is narrow, and its page has room for the next version
-- of it, because it changes with every append.
CREATE TABLE heads (
  tenant_id   text COLLATE "C" NOT NULL,
  lifetime_id text COLLATE "C" NOT NULL,
  created_at  bigint  NOT NULL,  -- of the lifetime, for the index by status
  seq         bigint  NOT NULL,
  at          bigint  NOT NULL,
  aborting    boolean NOT NULL,  -- its log has a request to abort
  status      text    NOT NULL,
  status_seq  bigint  NOT NULL,  -- the seq of the state that `status` was computed from
  reason      text,
  updated_at  bigint  NOT NULL,  -- when the status moved last
  finished_at bigint,
  PRIMARY KEY (tenant_id, lifetime_id)
) WITH (fillfactor = 50);

CREATE INDEX heads_by_status ON heads (tenant_id, status, created_at, lifetime_id);

-- Recovery and the sweeper walk the open ones of all tenants, which are few among many.
CREATE INDEX heads_open ON heads (lifetime_id, tenant_id) WHERE finished_at IS NULL;

-- The truth: what happened, in order, without gaps. Nobody may change or remove a row: the roles have no right to.
CREATE TABLE log (
  tenant_id   text COLLATE "C" NOT NULL,
  lifetime_id text COLLATE "C" NOT NULL,
  seq         bigint NOT NULL,
  at          bigint NOT NULL,
  entry_id    text COLLATE "C" NOT NULL,
  body        bytea  NOT NULL,  -- tickwork.model.records.encode_entry
  PRIMARY KEY (tenant_id, lifetime_id, seq),
  UNIQUE (tenant_id, lifetime_id, entry_id)
);

CREATE TABLE graphs (
  tenant_id  text COLLATE "C" NOT NULL,
  name       text   NOT NULL,
  version    text   NOT NULL,
  digest     text   NOT NULL,
  body       bytea  NOT NULL,  -- canonical JSON
  source     text   NOT NULL,
  created_at bigint NOT NULL,
  n          bigint NOT NULL GENERATED ALWAYS AS IDENTITY,  -- the order of registration
  PRIMARY KEY (tenant_id, name, version)
);

CREATE INDEX graphs_by_digest ON graphs (tenant_id, digest);

CREATE TABLE timers (
  tenant_id   text COLLATE "C" NOT NULL,
  lifetime_id text COLLATE "C" NOT NULL,
  timer_id    text COLLATE "C" NOT NULL,
  due         bigint NOT NULL,
  PRIMARY KEY (tenant_id, lifetime_id, timer_id)
);

CREATE INDEX timers_by_due ON timers (due);

CREATE TABLE questions (
  tenant_id   text COLLATE "C" NOT NULL,
  lifetime_id text COLLATE "C" NOT NULL,
  exec_id     text COLLATE "C" NOT NULL,
  waits_for   text   NOT NULL,
  since       bigint NOT NULL,
  body        bytea  NOT NULL,  -- a tickwork.model.lifetime.Question as msgpack
  PRIMARY KEY (tenant_id, lifetime_id, exec_id)
);

CREATE INDEX questions_by_age ON questions (tenant_id, since);

-- Messages that cannot be handled, as they came. `n` tells their age: beyond the limit a tenant's oldest goes first.
CREATE TABLE dead_letters (
  tenant_id text COLLATE "C" NOT NULL,
  letter_id text COLLATE "C" NOT NULL,
  topic     bytea  NOT NULL,
  key       bytea  NOT NULL,
  value     bytea  NOT NULL,
  reason    bytea  NOT NULL,  -- bytes, like all that a hostile message has a say in: text may not hold a zero
  at        bigint NOT NULL,
  headers   text,             -- a JSON object of strings
  n         bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
  PRIMARY KEY (tenant_id, letter_id)
);

CREATE INDEX dead_letters_by_age ON dead_letters (tenant_id, n);

-- What each role may do. tickwork_app is a tenant's: it sees the rows of the tenant that the transaction names, and
-- nothing while none is named. tickwork_system works for all of them, when the transaction says so.
ALTER TABLE lifetimes ENABLE ROW LEVEL SECURITY;
ALTER TABLE lifetimes FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON lifetimes TO tickwork_app
  USING (tenant_id = nullif(current_setting('tickwork.tenant', true), ''))
  WITH CHECK (tenant_id = nullif(current_setting('tickwork.tenant', true), ''));
CREATE POLICY of_all ON lifetimes TO tickwork_system
  USING (current_setting('tickwork.tenant', true) = '*') WITH CHECK (current_setting('tickwork.tenant', true) = '*');

ALTER TABLE heads ENABLE ROW LEVEL SECURITY;
ALTER TABLE heads FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON heads TO tickwork_app
  USING (tenant_id = nullif(current_setting('tickwork.tenant', true), ''))
  WITH CHECK (tenant_id = nullif(current_setting('tickwork.tenant', true), ''));
CREATE POLICY of_all ON heads TO tickwork_system
  USING (current_setting('tickwork.tenant', true) = '*') WITH CHECK (current_setting('tickwork.tenant', true) = '*');

ALTER TABLE log ENABLE ROW LEVEL SECURITY;
ALTER TABLE log FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON log TO tickwork_app
  USING (tenant_id = nullif(current_setting('tickwork.tenant', true), ''))
  WITH CHECK (tenant_id = nullif(current_setting('tickwork.tenant', true), ''));
CREATE POLICY of_all ON log TO tickwork_system
  USING (current_setting('tickwork.tenant', true) = '*') WITH CHECK (current_setting('tickwork.tenant', true) = '*');

ALTER TABLE graphs ENABLE ROW LEVEL SECURITY;
ALTER TABLE graphs FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON graphs TO tickwork_app
  USING (tenant_id = nullif(current_setting('tickwork.tenant', true), ''))
  WITH CHECK (tenant_id = nullif(current_setting('tickwork.tenant', true), ''));

ALTER TABLE timers ENABLE ROW LEVEL SECURITY;
ALTER TABLE timers FORCE ROW LEVEL SECURITY;
CREATE POLICY of_all ON timers TO tickwork_system
  USING (current_setting('tickwork.tenant', true) = '*') WITH CHECK (current_setting('tickwork.tenant', true) = '*');

ALTER TABLE questions ENABLE ROW LEVEL SECURITY;
ALTER TABLE questions FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON questions TO tickwork_app
  USING (tenant_id = nullif(current_setting('tickwork.tenant', true), ''))
  WITH CHECK (tenant_id = nullif(current_setting('tickwork.tenant', true), ''));
CREATE POLICY of_all ON questions TO tickwork_system
  USING (current_setting('tickwork.tenant', true) = '*') WITH CHECK (current_setting('tickwork.tenant', true) = '*');

ALTER TABLE dead_letters ENABLE ROW LEVEL SECURITY;
ALTER TABLE dead_letters FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON dead_letters TO tickwork_app
  USING (tenant_id = nullif(current_setting('tickwork.tenant', true), ''))
  WITH CHECK (tenant_id = nullif(current_setting('tickwork.tenant', true), ''));

GRANT SELECT ON lifetimes, heads, log, questions TO tickwork_app;
GRANT UPDATE (aborting) ON heads TO tickwork_app;  -- what it takes to lock a row; admitting waits for appends so
GRANT SELECT, INSERT ON graphs TO tickwork_app;
GRANT UPDATE (source) ON graphs TO tickwork_app;
GRANT SELECT, INSERT, DELETE ON dead_letters TO tickwork_app;

GRANT SELECT, INSERT ON lifetimes, log TO tickwork_system;
GRANT SELECT, INSERT, UPDATE ON heads TO tickwork_system;
GRANT SELECT, INSERT, UPDATE, DELETE ON timers, questions TO tickwork_system;
