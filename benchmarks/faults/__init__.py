"""What a kill costs: Tickwork and peers under `kill -9`, judged by a ledger that their steps write (docs/faults.md)."""
