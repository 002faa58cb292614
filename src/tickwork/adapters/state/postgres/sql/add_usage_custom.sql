-- Adds to custom counters of minutes, in the order of the keys.
INSERT INTO usage_custom (tenant_id, minute, account, shard, graph, kind, node, model, labels, name, amount)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::smallint[], $5::text[], $6::text[], $7::text[],
                     $8::text[], $9::text[], $10::text[], $11::bigint[])
ON CONFLICT (tenant_id, minute, account, shard) DO UPDATE SET
  amount = least(usage_custom.amount::numeric + excluded.amount, 9223372036854775807)::bigint;
