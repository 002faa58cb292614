-- Records a batch in one statement, because a way to the database costs more than what is done there: the entries, where
-- one whose id is in its lifetime's log already adds nothing (the count tells); how the lifetimes stand now, whose rows
-- the caller holds; what was used, by minutes and by days, in the order of the keys, for other processes write these
-- rows too; and nothing is reserved any more for executions that are recorded. Sums end at the greatest integer.
WITH entries AS (
  INSERT INTO log (tenant_id, lifetime_id, seq, at, entry_id, body)
  SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::bytea[])
  ON CONFLICT (tenant_id, lifetime_id, entry_id) DO NOTHING
  RETURNING 1
), standing AS (
  INSERT INTO heads (tenant_id, lifetime_id, created_at, seq, at, aborting, status, status_seq, reason, updated_at,
                     finished_at)
  SELECT * FROM unnest($7::text[], $8::text[], $9::bigint[], $10::bigint[], $11::bigint[], $12::boolean[], $13::text[],
                       $14::bigint[], $15::text[], $16::bigint[], $17::bigint[])
  ON CONFLICT (tenant_id, lifetime_id) DO UPDATE SET
    seq = excluded.seq, at = excluded.at, aborting = excluded.aborting, status = excluded.status,
    status_seq = excluded.status_seq, reason = excluded.reason, updated_at = excluded.updated_at,
    finished_at = excluded.finished_at
), minutes AS (
  INSERT INTO usage (tenant_id, minute, account, shard, graph, kind, node, model, labels, executions, tokens_in,
                     tokens_out, tokens_used, cost_nano_usd, unpriced, latency_us, queue_us)
  SELECT * FROM unnest($18::text[], $19::bigint[], $20::bytea[], $21::smallint[], $22::text[], $23::text[], $24::text[],
                       $25::text[], $26::text[], $27::bigint[], $28::bigint[], $29::bigint[], $30::bigint[],
                       $31::bigint[], $32::bigint[], $33::bigint[], $34::bigint[])
  ON CONFLICT (tenant_id, minute, account, shard) DO UPDATE SET
    executions = least(usage.executions::numeric + excluded.executions, 9223372036854775807)::bigint,
    tokens_in = least(usage.tokens_in::numeric + excluded.tokens_in, 9223372036854775807)::bigint,
    tokens_out = least(usage.tokens_out::numeric + excluded.tokens_out, 9223372036854775807)::bigint,
    tokens_used = least(usage.tokens_used::numeric + excluded.tokens_used, 9223372036854775807)::bigint,
    cost_nano_usd = least(usage.cost_nano_usd::numeric + excluded.cost_nano_usd, 9223372036854775807)::bigint,
    unpriced = least(usage.unpriced::numeric + excluded.unpriced, 9223372036854775807)::bigint,
    latency_us = least(usage.latency_us::numeric + excluded.latency_us, 9223372036854775807)::bigint,
    queue_us = least(usage.queue_us::numeric + excluded.queue_us, 9223372036854775807)::bigint
), days AS (
  INSERT INTO usage_daily (tenant_id, day, account, shard, graph, kind, node, model, labels, executions, tokens_in,
                           tokens_out, tokens_used, cost_nano_usd, unpriced, latency_us, queue_us)
  SELECT * FROM unnest($35::text[], $36::bigint[], $37::bytea[], $38::smallint[], $39::text[], $40::text[], $41::text[],
                       $42::text[], $43::text[], $44::bigint[], $45::bigint[], $46::bigint[], $47::bigint[],
                       $48::bigint[], $49::bigint[], $50::bigint[], $51::bigint[])
  ON CONFLICT (tenant_id, day, account, shard) DO UPDATE SET
    executions = least(usage_daily.executions::numeric + excluded.executions, 9223372036854775807)::bigint,
    tokens_in = least(usage_daily.tokens_in::numeric + excluded.tokens_in, 9223372036854775807)::bigint,
    tokens_out = least(usage_daily.tokens_out::numeric + excluded.tokens_out, 9223372036854775807)::bigint,
    tokens_used = least(usage_daily.tokens_used::numeric + excluded.tokens_used, 9223372036854775807)::bigint,
    cost_nano_usd = least(usage_daily.cost_nano_usd::numeric + excluded.cost_nano_usd, 9223372036854775807)::bigint,
    unpriced = least(usage_daily.unpriced::numeric + excluded.unpriced, 9223372036854775807)::bigint,
    latency_us = least(usage_daily.latency_us::numeric + excluded.latency_us, 9223372036854775807)::bigint,
    queue_us = least(usage_daily.queue_us::numeric + excluded.queue_us, 9223372036854775807)::bigint
), settled AS (
  DELETE FROM holds AS r USING unnest($52::text[], $53::text[]) AS w(tenant_id, exec_id)
  WHERE r.tenant_id = w.tenant_id AND r.exec_id = w.exec_id
)
SELECT count(*) FROM entries;
