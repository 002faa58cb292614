-- Lifetimes of a tenant that match, the newest first.
SELECT l.lifetime_id, l.tenant_id, l.graph_name, l.graph_version, l.graph_digest, l.status, l.reason, l.labels,
       l.idempotency_key, l.created_at, l.updated_at, l.finished_at,
       coalesce((SELECT max(seq) FROM log WHERE log.lid = l.lid), 0),
       coalesce((SELECT at FROM log WHERE log.lid = l.lid ORDER BY seq DESC LIMIT 1), 0)
FROM lifetimes AS l
WHERE l.tenant_id = :tenant_id
  AND (:before IS NULL OR l.lid < (SELECT lid FROM lifetimes WHERE lifetime_id = :before AND tenant_id = :tenant_id))
  AND (:graph IS NULL OR l.graph_name = :graph)
  AND (:version IS NULL OR l.graph_version = :version)
  AND (:label IS NULL OR EXISTS (SELECT 1 FROM json_each(l.labels) WHERE key = :label AND value = :label_value))
ORDER BY l.lid DESC LIMIT :limit;
