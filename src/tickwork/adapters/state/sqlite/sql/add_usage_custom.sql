-- Adds to a custom counter of a minute.
INSERT INTO usage_custom (tenant_id, minute, graph, kind, node, model, labels, name, amount)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant_id, minute, graph, kind, node, model, labels, name) DO UPDATE SET amount = min(amount + excluded.amount, 9223372036854775807);
