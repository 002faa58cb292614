-- Custom counters added up by the keys that are asked for, in halves.
SELECT CASE WHEN :by_tenant THEN tenant_id END,
       CASE WHEN :by_graph THEN graph END,
       CASE WHEN :by_kind THEN kind END,
       CASE WHEN :by_node THEN node END,
       CASE WHEN :by_model THEN model END,
       CASE WHEN :by_hour THEN minute / 60 END,
       CASE WHEN :by_day THEN minute / 1440 END,
       name, sum(amount >> 32), sum(amount & 4294967295)
FROM usage_custom
WHERE (:tenant_id IS NULL OR tenant_id = :tenant_id) AND minute >= :since AND minute < :until
  AND (:graph IS NULL OR graph = :graph)
  AND (:labels = '{}' OR NOT EXISTS (
    SELECT 1 FROM json_each(:labels) AS wanted
    WHERE NOT EXISTS (
      SELECT 1 FROM json_each(usage_custom.labels) AS has WHERE has.key = wanted.key AND has.value = wanted.value
    )
  ))
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;
