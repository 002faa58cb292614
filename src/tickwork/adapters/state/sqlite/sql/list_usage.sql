-- A tenant's usage since a minute, minute by minute.
SELECT minute, graph, kind, node, model, labels,
       executions, tokens_in, tokens_out, tokens_used, cost_nano_usd, unpriced, latency_us, queue_us
FROM usage WHERE tenant_id = :tenant_id AND minute >= :first;
