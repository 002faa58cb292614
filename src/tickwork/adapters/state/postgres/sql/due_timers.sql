-- Timers of all tenants, the earliest first.
SELECT tenant_id, lifetime_id, timer_id, due FROM timers ORDER BY due, tenant_id, lifetime_id, timer_id LIMIT $1;
