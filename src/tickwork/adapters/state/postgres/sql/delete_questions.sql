-- Closes waits.
DELETE FROM questions AS q USING unnest($1::text[], $2::text[], $3::text[]) AS w(tenant_id, lifetime_id, exec_id)
WHERE q.tenant_id = w.tenant_id AND q.lifetime_id = w.lifetime_id AND q.exec_id = w.exec_id;
