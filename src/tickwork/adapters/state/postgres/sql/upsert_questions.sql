-- Opens waits, or replaces what they ask; not of an execution that is recorded already: its wait is over.
INSERT INTO questions (tenant_id, lifetime_id, exec_id, waits_for, since, body)
SELECT w.*
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bytea[])
  AS w(tenant_id, lifetime_id, exec_id, waits_for, since, body)
WHERE NOT EXISTS (
  SELECT 1 FROM log AS e
  WHERE e.tenant_id = w.tenant_id AND e.lifetime_id = w.lifetime_id AND e.entry_id = w.exec_id
)
ON CONFLICT (tenant_id, lifetime_id, exec_id) DO UPDATE SET
  waits_for = excluded.waits_for, since = excluded.since, body = excluded.body;
