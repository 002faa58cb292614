-- Adds entries that are all expected to be new; repeated with more rows of values by the transaction.
INSERT INTO log (lid, seq, at, entry_id, body) VALUES (?, ?, ?, ?, ?);
