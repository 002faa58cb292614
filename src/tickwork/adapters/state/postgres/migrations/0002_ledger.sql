-- What executions used, added up by minute, counted in the transaction that records them. Sums end at the greatest
-- integer. Processes write to different shards of a minute, so that none waits for another one's commit; `account` is
-- the digest of what names the row, for labels may be longer than a key.
CREATE TABLE usage (
  tenant_id     text COLLATE "C" NOT NULL,
  minute        bigint   NOT NULL,  -- minutes since 1970-01-01 UTC, of when it was recorded
  account       bytea    NOT NULL,
  shard         smallint NOT NULL,
  graph         text     NOT NULL,
  kind          text     NOT NULL,
  node          text     NOT NULL,
  model         text     NOT NULL,  -- empty: none was named
  labels        text     NOT NULL,  -- those labels of the lifetime that were tracked then, as canonical JSON
  executions    bigint   NOT NULL,
  tokens_in     bigint   NOT NULL,
  tokens_out    bigint   NOT NULL,
  tokens_used   bigint   NOT NULL,
  cost_nano_usd bigint   NOT NULL,
  unpriced      bigint   NOT NULL,
  latency_us    bigint   NOT NULL,
  queue_us      bigint   NOT NULL,
  PRIMARY KEY (tenant_id, minute, account, shard)
) WITH (fillfactor = 50);

CREATE TABLE usage_custom (
  tenant_id text COLLATE "C" NOT NULL,
  minute    bigint   NOT NULL,
  account   bytea    NOT NULL,  -- the counter's name is part of it here
  shard     smallint NOT NULL,
  graph     text     NOT NULL,
  kind      text     NOT NULL,
  node      text     NOT NULL,
  model     text     NOT NULL,
  labels    text     NOT NULL,
  name      text     NOT NULL,
  amount    bigint   NOT NULL,  -- in millionths
  PRIMARY KEY (tenant_id, minute, account, shard)
) WITH (fillfactor = 50);

-- The same by days since 1970-01-01 UTC, so that a long window is added up from few rows.
CREATE TABLE usage_daily (
  tenant_id     text COLLATE "C" NOT NULL,
  day           bigint   NOT NULL,
  account       bytea    NOT NULL,
  shard         smallint NOT NULL,
  graph         text     NOT NULL,
  kind          text     NOT NULL,
  node          text     NOT NULL,
  model         text     NOT NULL,
  labels        text     NOT NULL,
  executions    bigint   NOT NULL,
  tokens_in     bigint   NOT NULL,
  tokens_out    bigint   NOT NULL,
  tokens_used   bigint   NOT NULL,
  cost_nano_usd bigint   NOT NULL,
  unpriced      bigint   NOT NULL,
  latency_us    bigint   NOT NULL,
  queue_us      bigint   NOT NULL,
  PRIMARY KEY (tenant_id, day, account, shard)
) WITH (fillfactor = 50);

CREATE TABLE usage_custom_daily (
  tenant_id text COLLATE "C" NOT NULL,
  day       bigint   NOT NULL,
  account   bytea    NOT NULL,
  shard     smallint NOT NULL,
  graph     text     NOT NULL,
  kind      text     NOT NULL,
  node      text     NOT NULL,
  model     text     NOT NULL,
  labels    text     NOT NULL,
  name      text     NOT NULL,
  amount    bigint   NOT NULL,
  PRIMARY KEY (tenant_id, day, account, shard)
) WITH (fillfactor = 50);

-- What is reserved for executions that were admitted and are not recorded yet.
CREATE TABLE holds (
  tenant_id     text COLLATE "C" NOT NULL,
  exec_id       text COLLATE "C" NOT NULL,
  lifetime_id   text COLLATE "C" NOT NULL,
  graph         text   NOT NULL,
  kind          text   NOT NULL,
  node          text   NOT NULL,
  labels        text   NOT NULL,  -- canonical JSON
  tokens        bigint NOT NULL,
  cost_nano_usd bigint NOT NULL,
  PRIMARY KEY (tenant_id, exec_id)
);

CREATE INDEX holds_by_lifetime ON holds (tenant_id, lifetime_id);

-- Who admits for a tenant, or puts its policies in force, holds its row: one after the other.
CREATE TABLE tenant_locks (
  tenant_id text COLLATE "C" NOT NULL PRIMARY KEY
);

-- Policy documents, as they were put in force one after the other. The newest of a tenant and graph is in force. The
-- installation's have no tenant, so they are the system's to read and write.
CREATE TABLE policy_documents (
  tenant_id text COLLATE "C" NOT NULL,
  graph     text COLLATE "C" NOT NULL,
  n         bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
  digest    text   NOT NULL,
  body      bytea  NOT NULL,  -- JSON; empty: the layer was emptied
  at        bigint NOT NULL,
  put_by    text   NOT NULL,
  PRIMARY KEY (tenant_id, graph, n)
);

-- Every set of policies that a lifetime was judged by, under its digest. A set is made of several layers: no tenant's.
CREATE TABLE policy_sets (
  digest text COLLATE "C" NOT NULL PRIMARY KEY,
  body   bytea NOT NULL
);

ALTER TABLE usage ENABLE ROW LEVEL SECURITY;
ALTER TABLE usage FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON usage TO tickwork_app
  USING (tenant_id = nullif(current_setting('tickwork.tenant', true), ''))
  WITH CHECK (tenant_id = nullif(current_setting('tickwork.tenant', true), ''));
CREATE POLICY of_all ON usage TO tickwork_system
  USING (current_setting('tickwork.tenant', true) = '*') WITH CHECK (current_setting('tickwork.tenant', true) = '*');

ALTER TABLE usage_custom ENABLE ROW LEVEL SECURITY;
ALTER TABLE usage_custom FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON usage_custom TO tickwork_app
  USING (tenant_id = nullif(current_setting('tickwork.tenant', true), ''))
  WITH CHECK (tenant_id = nullif(current_setting('tickwork.tenant', true), ''));
CREATE POLICY of_all ON usage_custom TO tickwork_system
  USING (current_setting('tickwork.tenant', true) = '*') WITH CHECK (current_setting('tickwork.tenant', true) = '*');

ALTER TABLE usage_daily ENABLE ROW LEVEL SECURITY;
ALTER TABLE usage_daily FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON usage_daily TO tickwork_app
  USING (tenant_id = nullif(current_setting('tickwork.tenant', true), ''))
  WITH CHECK (tenant_id = nullif(current_setting('tickwork.tenant', true), ''));
CREATE POLICY of_all ON usage_daily TO tickwork_system
  USING (current_setting('tickwork.tenant', true) = '*') WITH CHECK (current_setting('tickwork.tenant', true) = '*');

ALTER TABLE usage_custom_daily ENABLE ROW LEVEL SECURITY;
ALTER TABLE usage_custom_daily FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON usage_custom_daily TO tickwork_app
  USING (tenant_id = nullif(current_setting('tickwork.tenant', true), ''))
  WITH CHECK (tenant_id = nullif(current_setting('tickwork.tenant', true), ''));
CREATE POLICY of_all ON usage_custom_daily TO tickwork_system
  USING (current_setting('tickwork.tenant', true) = '*') WITH CHECK (current_setting('tickwork.tenant', true) = '*');

ALTER TABLE holds ENABLE ROW LEVEL SECURITY;
ALTER TABLE holds FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON holds TO tickwork_app
  USING (tenant_id = nullif(current_setting('tickwork.tenant', true), ''))
  WITH CHECK (tenant_id = nullif(current_setting('tickwork.tenant', true), ''));
CREATE POLICY of_all ON holds TO tickwork_system
  USING (current_setting('tickwork.tenant', true) = '*') WITH CHECK (current_setting('tickwork.tenant', true) = '*');

ALTER TABLE tenant_locks ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenant_locks FORCE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON tenant_locks TO tickwork_app
  USING (tenant_id = nullif(current_setting('tickwork.tenant', true), ''))
  WITH CHECK (tenant_id = nullif(current_setting('tickwork.tenant', true), ''));
CREATE POLICY of_all ON tenant_locks TO tickwork_system
  USING (current_setting('tickwork.tenant', true) = '*') WITH CHECK (current_setting('tickwork.tenant', true) = '*');

ALTER TABLE policy_documents ENABLE ROW LEVEL SECURITY;
ALTER TABLE policy_documents FORCE ROW LEVEL SECURITY;
CREATE POLICY of_all ON policy_documents TO tickwork_system
  USING (current_setting('tickwork.tenant', true) = '*') WITH CHECK (current_setting('tickwork.tenant', true) = '*');

GRANT SELECT ON usage, usage_custom, usage_daily, usage_custom_daily TO tickwork_app;
GRANT SELECT, INSERT ON holds TO tickwork_app;
GRANT SELECT, INSERT, UPDATE ON tenant_locks TO tickwork_app;

GRANT SELECT, INSERT, UPDATE ON usage, usage_custom, usage_daily, usage_custom_daily TO tickwork_system;
GRANT SELECT, DELETE ON holds TO tickwork_system;
GRANT SELECT, INSERT, UPDATE ON tenant_locks TO tickwork_system;
GRANT SELECT, INSERT ON policy_documents, policy_sets TO tickwork_system;
