-- Makes the row that lock_tenant.sql locks.
INSERT INTO tenant_locks (tenant_id) VALUES ($1) ON CONFLICT (tenant_id) DO NOTHING;
