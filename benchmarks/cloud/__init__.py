"""`python -m benchmarks cloud`: the cloud profile on real servers, its roles in processes of their own."""
