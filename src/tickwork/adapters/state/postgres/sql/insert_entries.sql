-- Adds entries; one whose id is in its lifetime's log already adds nothing (the count of rows tells).
INSERT INTO log (tenant_id, lifetime_id, seq, at, entry_id, body)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::bytea[])
ON CONFLICT (tenant_id, lifetime_id, entry_id) DO NOTHING;
