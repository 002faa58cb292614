-- Timers of all tenants, the earliest first.
SELECT l.tenant_id, l.lifetime_id, t.timer_id, t.due
FROM timers AS t JOIN lifetimes AS l ON l.lid = t.lid
ORDER BY t.due, t.lid, t.timer_id LIMIT ?;
