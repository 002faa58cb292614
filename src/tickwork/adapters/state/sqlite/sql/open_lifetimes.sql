-- Lifetimes of all tenants that have not ended, by id; only those in a status, or that nothing has moved since a time.
SELECT l.lifetime_id, l.tenant_id, l.graph_name, l.graph_version, l.graph_digest, l.status, l.reason, l.labels,
       l.idempotency_key, l.created_at, l.updated_at, l.finished_at,
       coalesce((SELECT max(seq) FROM log WHERE log.lid = l.lid), 0),
       coalesce((SELECT at FROM log WHERE log.lid = l.lid ORDER BY seq DESC LIMIT 1), 0)
FROM lifetimes AS l
WHERE l.finished_at IS NULL AND l.lifetime_id > :after
  AND (:status IS NULL OR l.status = :status)
  AND (:untouched_since IS NULL OR l.updated_at <= :untouched_since
       AND coalesce((SELECT at FROM log WHERE log.lid = l.lid ORDER BY seq DESC LIMIT 1), 0) <= :untouched_since)
ORDER BY l.lifetime_id LIMIT :limit;
