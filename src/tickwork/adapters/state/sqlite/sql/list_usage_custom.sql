-- A tenant's custom counters since a minute, minute by minute.
SELECT minute, graph, kind, node, model, labels, name, amount
FROM usage_custom WHERE tenant_id = :tenant_id AND minute >= :first;
