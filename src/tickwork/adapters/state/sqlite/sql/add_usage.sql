-- Adds to the usage of a minute. Where two integers have no sum that is one, SQLite takes the greatest.
INSERT INTO usage (tenant_id, minute, graph, kind, node, model, labels, executions, tokens_in, tokens_out, tokens_used,
                   cost_nano_usd, unpriced, latency_us, queue_us)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant_id, minute, graph, kind, node, model, labels) DO UPDATE SET
  executions = min(executions + excluded.executions, 9223372036854775807),
  tokens_in = min(tokens_in + excluded.tokens_in, 9223372036854775807),
  tokens_out = min(tokens_out + excluded.tokens_out, 9223372036854775807),
  tokens_used = min(tokens_used + excluded.tokens_used, 9223372036854775807),
  cost_nano_usd = min(cost_nano_usd + excluded.cost_nano_usd, 9223372036854775807),
  unpriced = min(unpriced + excluded.unpriced, 9223372036854775807),
  latency_us = min(latency_us + excluded.latency_us, 9223372036854775807),
  queue_us = min(queue_us + excluded.queue_us, 9223372036854775807);
