-- Opens a wait, or replaces what it asks.
INSERT INTO questions (lid, exec_id, tenant_id, since, body) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (lid, exec_id) DO UPDATE SET since = excluded.since, body = excluded.body;
