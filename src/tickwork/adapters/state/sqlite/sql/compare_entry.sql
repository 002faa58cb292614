-- Whether the entry that is in a lifetime's log under this id has this body.
SELECT body = ? FROM log WHERE lid = ? AND entry_id = ?;
