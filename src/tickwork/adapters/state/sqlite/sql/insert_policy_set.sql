-- Keeps a set of policies, once.
INSERT INTO policy_sets (digest, body) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING;
