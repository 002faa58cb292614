-- Messages that cannot be handled, as they came. `n` tells their age: beyond the limit a tenant's oldest goes first.
CREATE TABLE dead_letters (
  n         INTEGER PRIMARY KEY,
  tenant_id TEXT    NOT NULL,
  letter_id TEXT    NOT NULL,
  topic     TEXT    NOT NULL,
  key       TEXT    NOT NULL,
  value     BLOB    NOT NULL,
  reason    TEXT    NOT NULL,
  at        INTEGER NOT NULL,
  headers   TEXT,              -- a JSON object of strings
  UNIQUE (tenant_id, letter_id)
);

CREATE INDEX dead_letters_by_age ON dead_letters (tenant_id, n);
