-- Open waits of a tenant (of one lifetime, for one thing), the oldest first.
SELECT body FROM questions
WHERE tenant_id = $1 AND ($2::text IS NULL OR waits_for = $2)
ORDER BY since, lifetime_id, exec_id LIMIT $3;
