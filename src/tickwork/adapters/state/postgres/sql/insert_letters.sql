-- Keeps dead letters of a tenant, each once.
INSERT INTO dead_letters (tenant_id, letter_id, topic, key, value, reason, at, headers)
SELECT $1, * FROM unnest($2::text[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bigint[], $8::text[])
ON CONFLICT (tenant_id, letter_id) DO NOTHING;
