"""Adapters of the KVStore port."""
