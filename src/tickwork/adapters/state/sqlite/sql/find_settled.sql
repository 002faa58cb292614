-- For which of some executions (JSON, [tenant, lifetime, execution] each) there is nothing left to reserve: it is
-- recorded, or its lifetime has ended. By their places from 0.
SELECT asked.key FROM json_each(?) AS asked
CROSS JOIN lifetimes AS l ON l.lifetime_id = json_extract(asked.value, '$[1]') AND l.tenant_id = json_extract(asked.value, '$[0]')
WHERE l.finished_at IS NOT NULL
   OR EXISTS (SELECT 1 FROM log WHERE log.lid = l.lid AND log.entry_id = json_extract(asked.value, '$[2]'));
