-- Makes appends to some lifetimes of a tenant wait, in the order of their keys.
SELECT 1 FROM heads WHERE tenant_id = $1 AND lifetime_id = ANY($2::text[]) ORDER BY lifetime_id FOR UPDATE;
