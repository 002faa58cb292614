-- Facts about the server, the connection and the schema, for people.
SELECT version() AS version, current_database() AS database, session_user AS login,
       current_setting('fsync', true) AS fsync, current_setting('synchronous_commit', true) AS synchronous_commit,
       current_setting('full_page_writes', true) AS full_page_writes,
       current_setting('synchronous_standby_names', true) AS standbys,
       current_setting('max_connections', true) AS max_connections,
       (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE datname = current_database()) AS connections,
       (SELECT count(*) FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS s ON s.oid = c.relnamespace
        WHERE s.nspname = $1 AND c.relkind = 'r' AND c.relname = ANY($2::text[])
          AND c.relrowsecurity AND c.relforcerowsecurity) AS forced;
