-- Makes those who admit for a tenant, or put its policies in force, wait for each other.
SELECT 1 FROM tenant_locks WHERE tenant_id = $1 FOR UPDATE;
