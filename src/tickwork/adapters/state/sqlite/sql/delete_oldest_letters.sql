-- Lets go of a tenant's oldest dead letters: those beyond the newest `limit`.
DELETE FROM dead_letters
WHERE tenant_id = :tenant_id
  AND n <= (SELECT n FROM dead_letters WHERE tenant_id = :tenant_id ORDER BY n DESC LIMIT 1 OFFSET :limit);
