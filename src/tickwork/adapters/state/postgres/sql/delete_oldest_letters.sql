-- Lets go of a tenant's oldest dead letters: those beyond the newest so many.
DELETE FROM dead_letters
WHERE tenant_id = $1 AND n <= (SELECT n FROM dead_letters WHERE tenant_id = $1 ORDER BY n DESC LIMIT 1 OFFSET $2);
