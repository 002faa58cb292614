-- Adds to the usage of days, in the order of the keys; sums end at the greatest integer.
INSERT INTO usage_daily (tenant_id, day, account, shard, graph, kind, node, model, labels, executions, tokens_in,
                   tokens_out, tokens_used, cost_nano_usd, unpriced, latency_us, queue_us)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::smallint[], $5::text[], $6::text[], $7::text[],
                     $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[],
                     $15::bigint[], $16::bigint[], $17::bigint[])
ON CONFLICT (tenant_id, day, account, shard) DO UPDATE SET
  executions = least(usage_daily.executions::numeric + excluded.executions, 9223372036854775807)::bigint,
  tokens_in = least(usage_daily.tokens_in::numeric + excluded.tokens_in, 9223372036854775807)::bigint,
  tokens_out = least(usage_daily.tokens_out::numeric + excluded.tokens_out, 9223372036854775807)::bigint,
  tokens_used = least(usage_daily.tokens_used::numeric + excluded.tokens_used, 9223372036854775807)::bigint,
  cost_nano_usd = least(usage_daily.cost_nano_usd::numeric + excluded.cost_nano_usd, 9223372036854775807)::bigint,
  unpriced = least(usage_daily.unpriced::numeric + excluded.unpriced, 9223372036854775807)::bigint,
  latency_us = least(usage_daily.latency_us::numeric + excluded.latency_us, 9223372036854775807)::bigint,
  queue_us = least(usage_daily.queue_us::numeric + excluded.queue_us, 9223372036854775807)::bigint;
