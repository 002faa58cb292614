-- Creates a lifetime, or does nothing when its id, or its idempotency key, exists already (rowcount tells).
INSERT INTO lifetimes (lifetime_id, tenant_id, graph_name, graph_version, graph_digest, status, status_seq, reason,
                       labels, idempotency_key, created_at, updated_at, finished_at)
VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING;
