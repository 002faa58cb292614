-- Some entries of a lifetime's log, by their seqs.
SELECT seq, at, body FROM log WHERE tenant_id = $1 AND lifetime_id = $2 AND seq = ANY($3::bigint[]);
