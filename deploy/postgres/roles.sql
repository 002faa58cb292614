-- The logins and roles of one database, made once by an administrator, with psql 14 or newer:
--
--   TICKWORK_DB_OWNER_PASSWORD=... TICKWORK_DB_PASSWORD=... psql postgresql://postgres@HOST/postgres -f roles.sql
--
-- tickwork_owner owns the tables and migrates (TICKWORK_MIGRATE_URL); tickwork is what the processes are
-- (TICKWORK_STATE_URL): it owns nothing and can only become one of the two roles that row-level security holds.
\set ON_ERROR_STOP on
\getenv owner_password TICKWORK_DB_OWNER_PASSWORD
\getenv password TICKWORK_DB_PASSWORD

CREATE ROLE tickwork_app NOLOGIN;
CREATE ROLE tickwork_system NOLOGIN;
CREATE ROLE tickwork_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE tickwork LOGIN PASSWORD :'password';
GRANT tickwork_app, tickwork_system TO tickwork_owner, tickwork;
CREATE DATABASE tickwork OWNER tickwork_owner;
REVOKE ALL ON DATABASE tickwork FROM PUBLIC;
GRANT CONNECT ON DATABASE tickwork TO tickwork;
