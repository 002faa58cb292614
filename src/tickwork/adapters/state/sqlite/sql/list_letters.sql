-- Dead letters of a tenant, by id.
SELECT letter_id, tenant_id, topic, key, value, reason, at, headers FROM dead_letters
WHERE tenant_id = ? AND letter_id > ? ORDER BY letter_id LIMIT ?;
