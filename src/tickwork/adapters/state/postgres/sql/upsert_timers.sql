-- Sets timers, or moves them.
INSERT INTO timers (tenant_id, lifetime_id, timer_id, due)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
ON CONFLICT (tenant_id, lifetime_id, timer_id) DO UPDATE SET due = excluded.due;
