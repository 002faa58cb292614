-- Registers a graph; again with the same digest it moves the source only (no row changed: another digest).
INSERT INTO graphs (tenant_id, name, version, digest, body, source, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (tenant_id, name, version) DO UPDATE SET source = excluded.source WHERE graphs.digest = excluded.digest;
