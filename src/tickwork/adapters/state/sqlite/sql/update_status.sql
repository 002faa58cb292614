-- Moves a lifetime's status on, unless it has ended or a later state has spoken already. One that was asked to abort is
-- not paused any more: whoever looks for lifetimes with something to do has to find it.
UPDATE lifetimes
SET status = ?1, status_seq = ?2, reason = ?3, updated_at = ?4, finished_at = ?5
WHERE lid = ?6 AND status_seq <= ?2 AND finished_at IS NULL
  AND NOT (?1 = 'PAUSED' AND EXISTS (SELECT 1 FROM log WHERE lid = ?6 AND entry_id IN ('abort', 'abort:parent')));
