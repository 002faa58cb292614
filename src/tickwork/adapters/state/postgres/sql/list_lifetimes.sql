-- Lifetimes of a tenant that match, the newest first, from one on.
SELECT l.lifetime_id, l.tenant_id, l.graph_name, l.graph_version, l.graph_digest, h.status, h.reason, l.labels,
       l.idempotency_key, l.created_at, greatest(h.updated_at, h.at), h.finished_at, h.seq
FROM lifetimes AS l JOIN heads AS h ON h.tenant_id = l.tenant_id AND h.lifetime_id = l.lifetime_id
WHERE l.tenant_id = $1 AND (l.created_at, l.lifetime_id) < ($2::bigint, $3::text)
  AND ($4::text IS NULL OR l.graph_name = $4)
  AND ($5::text IS NULL OR l.graph_version = $5)
  AND ($6::text IS NULL OR strpos(l.label_lines, $6) > 0)
ORDER BY l.created_at DESC, l.lifetime_id DESC LIMIT $7;
