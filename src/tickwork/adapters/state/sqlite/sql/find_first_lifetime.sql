-- The lifetime that stands in the way of a new one: the same id (of any tenant), or the same idempotency key.
SELECT lid, tenant_id FROM lifetimes
WHERE lifetime_id = ? OR (tenant_id = ? AND idempotency_key = ?)
ORDER BY lid LIMIT 1;
