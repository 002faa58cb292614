-- Lets go of all that was reserved for lifetimes that have ended.
DELETE FROM holds AS r USING unnest($1::text[], $2::text[]) AS w(tenant_id, lifetime_id)
WHERE r.tenant_id = w.tenant_id AND r.lifetime_id = w.lifetime_id;
