-- Open waits of one lifetime, the oldest first.
SELECT body FROM questions
WHERE lid = (SELECT lid FROM lifetimes WHERE lifetime_id = :lifetime_id) AND tenant_id = :tenant_id
ORDER BY since, exec_id LIMIT :limit;
