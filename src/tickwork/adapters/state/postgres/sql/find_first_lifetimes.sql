-- The lifetimes that stand in the way of new ones: those with the same id, or the same idempotency key.
SELECT l.lifetime_id, l.tenant_id, l.graph_name, l.graph_version, l.graph_digest, h.status, h.reason, l.labels,
       l.idempotency_key, l.created_at, greatest(h.updated_at, h.at), h.finished_at, h.seq, w.n
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS w(tenant_id, lifetime_id, idempotency_key, n)
JOIN lifetimes AS l ON l.tenant_id = w.tenant_id
  AND (l.lifetime_id = w.lifetime_id OR l.idempotency_key = w.idempotency_key)
JOIN heads AS h ON h.tenant_id = l.tenant_id AND h.lifetime_id = l.lifetime_id
ORDER BY w.n, l.created_at DESC, l.lifetime_id DESC;
