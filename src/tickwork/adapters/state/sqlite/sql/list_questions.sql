-- Open waits of a tenant, the oldest first.
SELECT body FROM questions WHERE tenant_id = ? ORDER BY since, lid, exec_id LIMIT ?;
