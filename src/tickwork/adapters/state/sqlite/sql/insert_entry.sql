-- Adds an entry, or does nothing when its id is in this lifetime's log already (rowcount tells).
INSERT INTO log (lid, seq, at, entry_id, body) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (lid, entry_id) DO NOTHING;
