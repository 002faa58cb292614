-- Creates a lifetime; no row comes back when its id, or its idempotency key, exists already.
INSERT INTO lifetimes (lifetime_id, tenant_id, graph_name, graph_version, graph_digest, status, status_seq, reason,
                       labels, idempotency_key, created_at, updated_at, finished_at)
VALUES (:lifetime_id, :tenant_id, :graph_name, :graph_version, :graph_digest, :status, 0, :reason,
        :labels, :idempotency_key, :created_at, :updated_at, :finished_at)
ON CONFLICT DO NOTHING
RETURNING lid;
