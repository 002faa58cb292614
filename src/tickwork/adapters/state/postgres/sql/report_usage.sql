-- Usage added up by the keys that are asked for.
SELECT CASE WHEN $5::boolean THEN tenant_id END,
       CASE WHEN $6::boolean THEN graph END,
       CASE WHEN $7::boolean THEN kind END,
       CASE WHEN $8::boolean THEN node END,
       CASE WHEN $9::boolean THEN model END,
       CASE WHEN $10::boolean THEN minute / 60 END,
       CASE WHEN $11::boolean THEN minute / 1440 END,
       CASE WHEN $12::boolean THEN labels END,
       sum(executions), sum(tokens_in), sum(tokens_out), sum(tokens_used), sum(cost_nano_usd), sum(unpriced),
       sum(latency_us), sum(queue_us)
FROM usage
WHERE ($1::text IS NULL OR tenant_id = $1) AND minute >= $2::bigint AND minute < $3::bigint
  AND ($4::text IS NULL OR graph = $4)
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;
