-- A stretch of a lifetime's log.
SELECT seq, at, body FROM log WHERE tenant_id = $1 AND lifetime_id = $2 AND seq > $3 ORDER BY seq LIMIT $4;
