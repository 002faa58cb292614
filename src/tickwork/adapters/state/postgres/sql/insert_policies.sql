-- Puts a policy document in force, unless it is what is in force for its layer already.
INSERT INTO policy_documents (tenant_id, graph, digest, body, at, put_by)
SELECT $1::text, $2::text, $3::text, $4::bytea, $5::bigint, $6::text
WHERE NOT EXISTS (
  SELECT 1 FROM policy_documents
  WHERE tenant_id = $1 AND graph = $2 AND digest = $3 AND body = $4
    AND n = (SELECT max(n) FROM policy_documents WHERE tenant_id = $1 AND graph = $2)
);
