-- Lets go of what was reserved for executions that are recorded now.
DELETE FROM holds AS r USING unnest($1::text[], $2::text[]) AS w(tenant_id, exec_id)
WHERE r.tenant_id = w.tenant_id AND r.exec_id = w.exec_id;
