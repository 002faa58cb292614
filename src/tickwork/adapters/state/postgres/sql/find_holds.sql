-- Those of some executions of a tenant that something is reserved for.
SELECT exec_id FROM holds WHERE tenant_id = $1 AND exec_id = ANY($2::text[]);
