-- How the tables of a schema ($1), but these ($2), are behind row-level security.
SELECT c.relname AS name, c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
       (SELECT count(*)::int FROM pg_catalog.pg_policy WHERE polrelid = c.oid) AS policies
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS s ON s.oid = c.relnamespace
WHERE s.nspname = $1 AND c.relkind IN ('r', 'p') AND c.relname <> ALL ($2::text[]) ORDER BY c.relname;
