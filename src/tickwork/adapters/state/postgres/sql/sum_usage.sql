-- A tenant's usage since each of some minutes, its custom counters (where they are asked for), and what is reserved, by
-- account: whole days by days, the rest of the first day by minutes. One statement, so that all of it is of one moment:
-- what is recorded while it runs is in both or in none. The least minute and day are said apart for the planner.
SELECT 'used' AS what, f.first, u.graph, u.kind, u.node, u.model, u.labels, '' AS name,
       array[sum(u.executions), sum(u.tokens_in), sum(u.tokens_out), sum(u.tokens_used), sum(u.cost_nano_usd),
             sum(u.unpriced), sum(u.latency_us), sum(u.queue_us)]
FROM unnest($2::bigint[], $3::bigint[]) AS f(first, until) JOIN usage AS u ON u.tenant_id = $1
  AND u.minute >= f.first AND u.minute < f.until AND u.minute >= $4::bigint
GROUP BY f.first, u.graph, u.kind, u.node, u.model, u.labels
UNION ALL
SELECT 'used', f.first, u.graph, u.kind, u.node, u.model, u.labels, '',
       array[sum(u.executions), sum(u.tokens_in), sum(u.tokens_out), sum(u.tokens_used), sum(u.cost_nano_usd),
             sum(u.unpriced), sum(u.latency_us), sum(u.queue_us)]
FROM unnest($5::bigint[], $6::bigint[]) AS f(first, day) JOIN usage_daily AS u ON u.tenant_id = $1
  AND u.day >= f.day AND u.day >= $7::bigint
GROUP BY f.first, u.graph, u.kind, u.node, u.model, u.labels
UNION ALL
SELECT 'counted', f.first, u.graph, u.kind, u.node, u.model, u.labels, u.name,
       array[sum(u.amount)]
FROM unnest($2::bigint[], $3::bigint[]) AS f(first, until) JOIN usage_custom AS u ON u.tenant_id = $1
  AND u.minute >= f.first AND u.minute < f.until AND u.minute >= $4::bigint AND $8::boolean
GROUP BY f.first, u.graph, u.kind, u.node, u.model, u.labels, u.name
UNION ALL
SELECT 'counted', f.first, u.graph, u.kind, u.node, u.model, u.labels, u.name,
       array[sum(u.amount)]
FROM unnest($5::bigint[], $6::bigint[]) AS f(first, day) JOIN usage_custom_daily AS u ON u.tenant_id = $1
  AND u.day >= f.day AND u.day >= $7::bigint AND $8::boolean
GROUP BY f.first, u.graph, u.kind, u.node, u.model, u.labels, u.name
UNION ALL
SELECT 'held', 0, r.graph, r.kind, r.node, '', r.labels, '', array[count(*), sum(r.tokens), sum(r.cost_nano_usd)]
FROM holds AS r WHERE r.tenant_id = $1
GROUP BY r.graph, r.kind, r.node, r.labels;
