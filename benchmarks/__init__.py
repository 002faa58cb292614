"""What Tickwork costs: workloads whose nodes do nothing, measured beside a floor (docs/benchmarks.md)."""
