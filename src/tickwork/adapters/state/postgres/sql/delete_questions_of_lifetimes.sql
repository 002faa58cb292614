-- Closes all waits of lifetimes that have ended.
DELETE FROM questions AS q USING unnest($1::text[], $2::text[]) AS w(tenant_id, lifetime_id)
WHERE q.tenant_id = w.tenant_id AND q.lifetime_id = w.lifetime_id;
