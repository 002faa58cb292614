-- Removes one dead letter (rowcount tells whether there was one).
DELETE FROM dead_letters WHERE tenant_id = ? AND letter_id = ?;
