-- Those of some executions (of lifetimes, which are locked) for which there is nothing left to reserve: they are
-- recorded, or their lifetime has ended.
SELECT w.lifetime_id, w.exec_id
FROM unnest($2::text[], $3::text[]) AS w(lifetime_id, exec_id)
JOIN heads AS h ON h.tenant_id = $1 AND h.lifetime_id = w.lifetime_id
WHERE h.finished_at IS NOT NULL OR EXISTS (
  SELECT 1 FROM log AS e WHERE e.tenant_id = $1 AND e.lifetime_id = w.lifetime_id AND e.entry_id = w.exec_id
);
