-- Clears all timers of lifetimes that have ended.
DELETE FROM timers AS t USING unnest($1::text[], $2::text[]) AS w(tenant_id, lifetime_id)
WHERE t.tenant_id = w.tenant_id AND t.lifetime_id = w.lifetime_id;
