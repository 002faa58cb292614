-- Opens a wait, or replaces what it asks; not of an execution that is recorded already: its wait is over.
INSERT INTO questions (lid, exec_id, tenant_id, since, body)
SELECT ?1, ?2, ?3, ?4, ?5 WHERE NOT EXISTS (SELECT 1 FROM log WHERE lid = ?1 AND entry_id = ?2)
ON CONFLICT (lid, exec_id) DO UPDATE SET since = excluded.since, body = excluded.body;
