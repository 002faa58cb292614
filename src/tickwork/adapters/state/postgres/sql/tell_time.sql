-- The time (us): the caller's, or the database's.
SELECT coalesce($1::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
