-- Some entries of a lifetime's log, by their seqs (a JSON array).
SELECT seq, at, body FROM log
WHERE lid = (SELECT lid FROM lifetimes WHERE lifetime_id = :lifetime_id AND tenant_id = :tenant_id)
  AND seq IN (SELECT value FROM json_each(:seqs));
