-- A stretch of a lifetime's log.
SELECT seq, at, body FROM log
WHERE lid = (SELECT lid FROM lifetimes WHERE lifetime_id = :lifetime_id AND tenant_id = :tenant_id) AND seq > :after
ORDER BY seq LIMIT :limit;
