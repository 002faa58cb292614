-- Whether a lifetime has ended: its time of ending, or null.
SELECT finished_at FROM lifetimes WHERE lid = ?;
