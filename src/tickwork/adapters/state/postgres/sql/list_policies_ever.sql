-- All policy documents that ever were in force, the oldest first.
SELECT tenant_id, graph, digest, body, at, put_by FROM policy_documents ORDER BY n;
