-- Moves a lifetime's status on, unless it has ended or a later state has spoken already.
UPDATE lifetimes
SET status = :status, status_seq = :as_of, reason = :reason, updated_at = :at, finished_at = :finished_at
WHERE lid = :lid AND status_seq <= :as_of AND finished_at IS NULL;
