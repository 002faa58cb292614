-- The tables of a schema.
SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = $1 ORDER BY tablename;
