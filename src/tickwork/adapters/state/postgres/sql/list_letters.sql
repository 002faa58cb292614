-- Dead letters of a tenant, by id.
SELECT letter_id, tenant_id, topic, key, value, reason, at, headers FROM dead_letters
WHERE tenant_id = $1 AND letter_id > $2 ORDER BY letter_id LIMIT $3;
