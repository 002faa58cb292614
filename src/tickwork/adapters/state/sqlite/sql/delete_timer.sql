-- Clears one timer.
DELETE FROM timers WHERE lid = ? AND timer_id = ?;
