-- Writes how lifetimes stand now; the caller holds their rows.
INSERT INTO heads (tenant_id, lifetime_id, created_at, seq, at, aborting, status, status_seq, reason, updated_at,
                   finished_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::boolean[], $7::text[],
                     $8::bigint[], $9::text[], $10::bigint[], $11::bigint[])
ON CONFLICT (tenant_id, lifetime_id) DO UPDATE SET
  seq = excluded.seq, at = excluded.at, aborting = excluded.aborting, status = excluded.status,
  status_seq = excluded.status_seq, reason = excluded.reason, updated_at = excluded.updated_at,
  finished_at = excluded.finished_at;
