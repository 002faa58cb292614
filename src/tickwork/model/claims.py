"""What a worker and the sweeper agree on: how work is claimed in the key-value store, and for how long that counts."""

from __future__ import annotations

LEASE = 30.0
"""Seconds of silence after which a worker is given up (the runtime's `lease`)."""

BEATS = 3
"""How often a worker is heard in that time."""

KEPT = 4
"""Leases after which a claim that nobody renews is forgotten altogether."""


def claim_key(work_id: str) -> str:
    """The key of a claim on this work: an exec id, or `reconcile_work` of one."""
    return f"claim/{work_id}"


def claim_value(worker: str, beat: int) -> bytes:
    """The value: who has it, and a number that grows as long as he lives."""
    return f"{worker}:{beat}".encode()


def claimed_by(value: bytes) -> str:
    """The worker of a claim's value."""
    return value.rpartition(b":")[0].decode()


def reconcile_work(exec_id: str) -> str:
    """The id of asking the reconcile hook about an execution: other work than the execution itself."""
    return f"{exec_id}?"
