-- Keeps a dead letter, once.
INSERT INTO dead_letters (tenant_id, letter_id, topic, key, value, reason, at, headers) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant_id, letter_id) DO NOTHING;
