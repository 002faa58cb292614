-- Lifetimes of all tenants that have not ended, by id; only those in a status, or that nothing has moved since a time.
SELECT l.lifetime_id, l.tenant_id, l.graph_name, l.graph_version, l.graph_digest, h.status, h.reason, l.labels,
       l.idempotency_key, l.created_at, greatest(h.updated_at, h.at), h.finished_at, h.seq
FROM heads AS h JOIN lifetimes AS l ON l.tenant_id = h.tenant_id AND l.lifetime_id = h.lifetime_id
WHERE h.finished_at IS NULL AND h.lifetime_id > $1
  AND ($3::text IS NULL OR h.status = $3)
  AND ($4::bigint IS NULL OR h.updated_at <= $4 AND h.at <= $4)
ORDER BY h.lifetime_id, h.tenant_id LIMIT $2;
