-- A tenant's usage since a minute, by account. In halves: sum() fails where the sum is no 64-bit integer.
SELECT graph, kind, node, model, labels,
       sum(executions >> 32), sum(executions & 4294967295),
       sum(tokens_in >> 32), sum(tokens_in & 4294967295),
       sum(tokens_out >> 32), sum(tokens_out & 4294967295),
       sum(tokens_used >> 32), sum(tokens_used & 4294967295),
       sum(cost_nano_usd >> 32), sum(cost_nano_usd & 4294967295),
       sum(unpriced >> 32), sum(unpriced & 4294967295),
       sum(latency_us >> 32), sum(latency_us & 4294967295),
       sum(queue_us >> 32), sum(queue_us & 4294967295)
FROM usage WHERE tenant_id = :tenant_id AND minute >= :first
GROUP BY graph, kind, node, model, labels;
