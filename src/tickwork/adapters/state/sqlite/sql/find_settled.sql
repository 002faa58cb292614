-- Whether there is nothing left to reserve for an execution: it is recorded, or its lifetime has ended.
SELECT 1 FROM lifetimes AS l
WHERE l.lifetime_id = :lifetime_id AND l.tenant_id = :tenant_id
  AND (l.finished_at IS NOT NULL OR EXISTS (SELECT 1 FROM log WHERE log.lid = l.lid AND log.entry_id = :exec_id));
