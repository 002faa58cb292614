"""The technologies below the ports, one package a port: bus, state, blob, kv. None of them imports another."""
