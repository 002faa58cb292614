-- How lifetimes stand, locked in the order of their keys; and the time, in any case: the caller's, or the database's.
SELECT t.now, h.*
FROM (SELECT coalesce($3::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) AS now) AS t
LEFT JOIN (
  SELECT h.tenant_id, h.lifetime_id, h.created_at, h.seq, h.at, h.aborting, h.status, h.status_seq, h.reason,
         h.updated_at, h.finished_at, l.graph_name, l.labels
  FROM unnest($1::text[], $2::text[]) AS w(tenant_id, lifetime_id)
  JOIN heads AS h ON h.tenant_id = w.tenant_id AND h.lifetime_id = w.lifetime_id
  JOIN lifetimes AS l ON l.tenant_id = h.tenant_id AND l.lifetime_id = h.lifetime_id
  ORDER BY h.tenant_id, h.lifetime_id
  FOR UPDATE OF h
) AS h ON true;
