-- Clears timers.
DELETE FROM timers AS t USING unnest($1::text[], $2::text[], $3::text[]) AS w(tenant_id, lifetime_id, timer_id)
WHERE t.tenant_id = w.tenant_id AND t.lifetime_id = w.lifetime_id AND t.timer_id = w.timer_id;
