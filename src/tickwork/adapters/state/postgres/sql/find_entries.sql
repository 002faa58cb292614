-- Those of some entries that are recorded, with their bodies.
SELECT e.tenant_id, e.lifetime_id, e.entry_id, e.body
FROM unnest($1::text[], $2::text[], $3::text[]) AS w(tenant_id, lifetime_id, entry_id)
JOIN log AS e ON e.tenant_id = w.tenant_id AND e.lifetime_id = w.lifetime_id AND e.entry_id = w.entry_id;
