-- Usage added up by the keys that are asked for, in halves (see sum_usage.sql).
SELECT CASE WHEN :by_tenant THEN tenant_id END,
       CASE WHEN :by_graph THEN graph END,
       CASE WHEN :by_kind THEN kind END,
       CASE WHEN :by_node THEN node END,
       CASE WHEN :by_model THEN model END,
       CASE WHEN :by_hour THEN minute / 60 END,
       CASE WHEN :by_day THEN minute / 1440 END,
       sum(executions >> 32), sum(executions & 4294967295),
       sum(tokens_in >> 32), sum(tokens_in & 4294967295),
       sum(tokens_out >> 32), sum(tokens_out & 4294967295),
       sum(tokens_used >> 32), sum(tokens_used & 4294967295),
       sum(cost_nano_usd >> 32), sum(cost_nano_usd & 4294967295),
       sum(unpriced >> 32), sum(unpriced & 4294967295),
       sum(latency_us >> 32), sum(latency_us & 4294967295),
       sum(queue_us >> 32), sum(queue_us & 4294967295)
FROM usage
WHERE (:tenant_id IS NULL OR tenant_id = :tenant_id) AND minute >= :since AND minute < :until
  AND (:graph IS NULL OR graph = :graph)
  AND (:labels = '{}' OR NOT EXISTS (
    SELECT 1 FROM json_each(:labels) AS wanted
    WHERE NOT EXISTS (
      SELECT 1 FROM json_each(usage.labels) AS has WHERE has.key = wanted.key AND has.value = wanted.value
    )
  ))
GROUP BY 1, 2, 3, 4, 5, 6, 7;
