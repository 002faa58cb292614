-- When a lifetime of a tenant was created: what lists go on after.
SELECT created_at FROM lifetimes WHERE tenant_id = $1 AND lifetime_id = $2;
