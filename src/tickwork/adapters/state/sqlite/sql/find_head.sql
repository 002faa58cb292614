-- Where a lifetime's log stands: its number, its tenant, and the last seq and time recorded.
SELECT l.lid, l.tenant_id,
       coalesce((SELECT max(seq) FROM log WHERE log.lid = l.lid), 0),
       coalesce((SELECT at FROM log WHERE log.lid = l.lid ORDER BY seq DESC LIMIT 1), 0)
FROM lifetimes AS l WHERE l.lifetime_id = ?;
