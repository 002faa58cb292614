-- Where a lifetime's log stands: its number, its tenant, the last seq and time recorded, whether it has ended; and what
-- its usage is booked on.
SELECT l.lid, l.tenant_id,
       coalesce((SELECT max(seq) FROM log WHERE log.lid = l.lid), 0),
       coalesce((SELECT at FROM log WHERE log.lid = l.lid ORDER BY seq DESC LIMIT 1), 0),
       l.finished_at IS NOT NULL, l.graph_name, l.labels
FROM lifetimes AS l WHERE l.lifetime_id = ?;
