-- Clears all timers of a lifetime that has ended.
DELETE FROM timers WHERE lid = ?;
