-- Closes all waits of a lifetime that has ended.
DELETE FROM questions WHERE lid = ?;
