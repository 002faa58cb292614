-- Reserves for executions of a tenant.
INSERT INTO holds (tenant_id, exec_id, lifetime_id, graph, kind, node, labels, tokens, cost_nano_usd)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
                         $9::bigint[])
ON CONFLICT (tenant_id, exec_id) DO NOTHING;
