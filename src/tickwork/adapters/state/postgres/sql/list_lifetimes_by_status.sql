-- Lifetimes of a tenant in a status that match, the newest first, from one on.
SELECT l.lifetime_id, l.tenant_id, l.graph_name, l.graph_version, l.graph_digest, h.status, h.reason, l.labels,
       l.idempotency_key, l.created_at, greatest(h.updated_at, h.at), h.finished_at, h.seq
FROM heads AS h JOIN lifetimes AS l ON l.tenant_id = h.tenant_id AND l.lifetime_id = h.lifetime_id
WHERE h.tenant_id = $1 AND (h.created_at, h.lifetime_id) < ($2::bigint, $3::text)
  AND ($4::text IS NULL OR l.graph_name = $4)
  AND ($5::text IS NULL OR l.graph_version = $5)
  AND ($6::text IS NULL OR strpos(l.label_lines, $6) > 0)
  AND h.status = $8
ORDER BY h.created_at DESC, h.lifetime_id DESC LIMIT $7;
