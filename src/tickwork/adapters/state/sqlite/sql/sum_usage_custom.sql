-- A tenant's custom counters since a minute, by account, in halves.
SELECT graph, kind, node, model, labels, name, sum(amount >> 32), sum(amount & 4294967295)
FROM usage_custom WHERE tenant_id = :tenant_id AND minute >= :first
GROUP BY graph, kind, node, model, labels, name;
