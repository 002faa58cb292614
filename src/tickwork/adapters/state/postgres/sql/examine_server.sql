-- What the server, this session and its login are like; $1 is the schema.
SELECT version() AS version, current_setting('server_version_num')::int AS number, session_user AS login,
       me.rolsuper AS super, me.rolbypassrls AS bypass, pg_is_in_recovery() AS standby,
       current_setting('fsync', true) AS fsync, current_setting('synchronous_commit', true) AS synchronous_commit,
       current_setting('full_page_writes', true) AS full_page_writes,
       current_setting('synchronous_standby_names', true) AS standbys,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS places,
       CASE WHEN me.rolconnlimit < 0 THEN 2147483647 ELSE me.rolconnlimit END AS own_places,
       (SELECT count(*)::int FROM pg_catalog.pg_stat_activity
        WHERE usesysid IS NOT NULL AND datid IS NOT NULL AND pid <> pg_backend_pid()) AS sessions,
       (SELECT count(*)::int FROM pg_catalog.pg_stat_activity
        WHERE usename = session_user AND pid <> pg_backend_pid()) AS own_sessions,
       coalesce((SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS encrypted,
       EXISTS (SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tableowner = session_user) AS owner
FROM pg_catalog.pg_roles AS me WHERE me.rolname = session_user;
