-- Moves a lifetime's status on, unless it has ended or a later state has spoken already.
UPDATE lifetimes
SET status = ?, status_seq = ?, reason = ?, updated_at = ?, finished_at = ?
WHERE lid = ? AND status_seq <= ? AND finished_at IS NULL;
