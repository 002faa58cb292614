-- The first lifetimes of a tenant whose id lies in a range (those that begin with a prefix).
SELECT l.lifetime_id, l.tenant_id, l.graph_name, l.graph_version, l.graph_digest, h.status, h.reason, l.labels,
       l.idempotency_key, l.created_at, greatest(h.updated_at, h.at), h.finished_at, h.seq
FROM lifetimes AS l JOIN heads AS h ON h.tenant_id = l.tenant_id AND h.lifetime_id = l.lifetime_id
WHERE l.tenant_id = $1 AND l.lifetime_id >= $2 AND l.lifetime_id < $3
ORDER BY l.lifetime_id LIMIT $4;
