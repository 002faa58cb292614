-- Creates lifetimes, each unless its id, or its idempotency key, exists already; tells which ones are new.
INSERT INTO lifetimes (tenant_id, lifetime_id, graph_name, graph_version, graph_digest, labels, label_lines,
                       idempotency_key, created_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                     $9::bigint[])
ON CONFLICT DO NOTHING
RETURNING tenant_id, lifetime_id;
