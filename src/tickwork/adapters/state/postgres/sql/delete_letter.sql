-- Removes one dead letter (the count of rows tells whether there was one).
DELETE FROM dead_letters WHERE tenant_id = $1 AND letter_id = $2;
