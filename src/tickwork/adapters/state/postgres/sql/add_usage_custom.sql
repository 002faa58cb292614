-- Adds to custom counters of minutes and of days, in the order of the keys.
WITH minutes AS (
  INSERT INTO usage_custom (tenant_id, minute, account, shard, graph, kind, node, model, labels, name, amount)
  SELECT * FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::smallint[], $5::text[], $6::text[], $7::text[],
                       $8::text[], $9::text[], $10::text[], $11::bigint[])
  ON CONFLICT (tenant_id, minute, account, shard) DO UPDATE SET
    amount = least(usage_custom.amount::numeric + excluded.amount, 9223372036854775807)::bigint
)
INSERT INTO usage_custom_daily (tenant_id, day, account, shard, graph, kind, node, model, labels, name, amount)
SELECT * FROM unnest($12::text[], $13::bigint[], $14::bytea[], $15::smallint[], $16::text[], $17::text[], $18::text[],
                     $19::text[], $20::text[], $21::text[], $22::bigint[])
ON CONFLICT (tenant_id, day, account, shard) DO UPDATE SET
  amount = least(usage_custom_daily.amount::numeric + excluded.amount, 9223372036854775807)::bigint;
