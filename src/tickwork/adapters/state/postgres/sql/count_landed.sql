-- How many of some entries are recorded exactly where, when and as a transaction meant to.
SELECT count(*)
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::bytea[])
  AS w(tenant_id, lifetime_id, seq, at, entry_id, body)
JOIN log AS e ON e.tenant_id = w.tenant_id AND e.lifetime_id = w.lifetime_id AND e.seq = w.seq
WHERE e.at = w.at AND e.entry_id = w.entry_id AND e.body = w.body;
