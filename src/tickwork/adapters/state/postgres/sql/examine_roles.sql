-- What these roles ($1) may, and whether the login has the right $2 on them.
SELECT rolname, rolsuper OR rolbypassrls AS above, pg_catalog.pg_has_role(session_user, oid, $2) AS member
FROM pg_catalog.pg_roles WHERE rolname = ANY ($1::text[]);
