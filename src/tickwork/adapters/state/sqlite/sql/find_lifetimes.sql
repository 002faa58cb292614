-- The first lifetimes of a tenant whose id lies in a range (those that begin with a prefix).
-- The plus keeps SQLite from searching by tenant and sorting.
SELECT l.lifetime_id, l.tenant_id, l.graph_name, l.graph_version, l.graph_digest, l.status, l.reason, l.labels,
       l.idempotency_key, l.created_at, l.updated_at, l.finished_at,
       coalesce((SELECT max(seq) FROM log WHERE log.lid = l.lid), 0),
       coalesce((SELECT at FROM log WHERE log.lid = l.lid ORDER BY seq DESC LIMIT 1), 0)
FROM lifetimes AS l
WHERE l.lifetime_id >= :low AND l.lifetime_id < :high AND +l.tenant_id = :tenant_id
ORDER BY l.lifetime_id LIMIT :limit;
