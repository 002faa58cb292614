-- Closes one wait.
DELETE FROM questions WHERE lid = ? AND exec_id = ?;
