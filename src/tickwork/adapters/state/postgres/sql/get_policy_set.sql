-- The set of policies with a digest.
SELECT body FROM policy_sets WHERE digest = $1;
