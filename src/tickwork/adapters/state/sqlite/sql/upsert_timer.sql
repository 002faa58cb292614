-- Sets a timer, or moves it.
INSERT INTO timers (lid, timer_id, due) VALUES (?, ?, ?)
ON CONFLICT (lid, timer_id) DO UPDATE SET due = excluded.due;
