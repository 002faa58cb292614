-- Open waits of one lifetime (for one thing), the oldest first.
SELECT body FROM questions
WHERE tenant_id = $1 AND lifetime_id = $4 AND ($2::text IS NULL OR waits_for = $2)
ORDER BY since, exec_id LIMIT $3;
