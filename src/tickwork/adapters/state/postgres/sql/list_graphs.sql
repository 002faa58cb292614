-- Graphs of a tenant that match what is given, the newest registration first.
SELECT tenant_id, name, version, digest, body, source, created_at FROM graphs
WHERE tenant_id = $1 AND ($2::text IS NULL OR name = $2) AND ($3::text IS NULL OR version = $3)
  AND ($4::text IS NULL OR digest = $4)
ORDER BY n DESC;
