-- Graphs of a tenant that match what is given, the newest registration first.
SELECT tenant_id, name, version, digest, body, source, created_at FROM graphs
WHERE tenant_id = :tenant_id AND (:name IS NULL OR name = :name) AND (:version IS NULL OR version = :version)
  AND (:digest IS NULL OR digest = :digest)
ORDER BY id DESC;
