-- What executions used, added up by minute, counted in the transaction that records them. It begins with this version:
-- what was recorded before is not counted. Sums end at the greatest integer.
CREATE TABLE usage (
  tenant_id     TEXT    NOT NULL,
  minute        INTEGER NOT NULL,  -- minutes since 1970-01-01 UTC, of when it was recorded
  graph         TEXT    NOT NULL,
  kind          TEXT    NOT NULL,
  node          TEXT    NOT NULL,
  model         TEXT    NOT NULL,  -- empty: none was named
  labels        TEXT    NOT NULL,  -- those labels of the lifetime that were tracked then, as canonical JSON
  executions    INTEGER NOT NULL,
  tokens_in     INTEGER NOT NULL,
  tokens_out    INTEGER NOT NULL,
  tokens_used   INTEGER NOT NULL,
  cost_nano_usd INTEGER NOT NULL,
  unpriced      INTEGER NOT NULL,
  latency_us    INTEGER NOT NULL,
  queue_us      INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, minute, graph, kind, node, model, labels)
) WITHOUT ROWID;

CREATE TABLE usage_custom (
  tenant_id TEXT    NOT NULL,
  minute    INTEGER NOT NULL,
  graph     TEXT    NOT NULL,
  kind      TEXT    NOT NULL,
  node      TEXT    NOT NULL,
  model     TEXT    NOT NULL,
  labels    TEXT    NOT NULL,
  name      TEXT    NOT NULL,
  amount    INTEGER NOT NULL,  -- in millionths
  PRIMARY KEY (tenant_id, minute, graph, kind, node, model, labels, name)
) WITHOUT ROWID;

-- Policy documents, as they were put in force one after the other. The newest of a tenant and graph is in force.
CREATE TABLE policy_documents (
  n         INTEGER PRIMARY KEY,
  tenant_id TEXT    NOT NULL,
  graph     TEXT    NOT NULL,
  digest    TEXT    NOT NULL,
  body      BLOB    NOT NULL,  -- JSON; empty: the layer was emptied
  at        INTEGER NOT NULL,
  put_by    TEXT    NOT NULL
);

CREATE INDEX policy_documents_by_layer ON policy_documents (tenant_id, graph, n);

-- Every set of policies that a lifetime was judged by, under its digest.
CREATE TABLE policy_sets (
  digest TEXT NOT NULL PRIMARY KEY,
  body   BLOB NOT NULL
) WITHOUT ROWID;
