-- Keeps a set of policies, once.
INSERT INTO policy_sets (digest, body) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING;
