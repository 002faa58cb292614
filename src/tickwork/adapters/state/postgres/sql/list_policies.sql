-- The policy documents that are in force, of all layers.
SELECT tenant_id, graph, digest, body, at, put_by FROM policy_documents AS d
WHERE n = (SELECT max(n) FROM policy_documents WHERE tenant_id = d.tenant_id AND graph = d.graph) AND length(body) > 0
ORDER BY tenant_id, graph;
