"""What a stretch of time cost: CPU of each role and server, commits and bytes of the database, messages on the bus."""

from __future__ import annotations

import os
import time

import msgspec

from benchmarks.cloud import processes, segments
from benchmarks.cloud.deployment import Deployment
from benchmarks.cloud.processes import Usage
from benchmarks.cloud.segments import Traffic

SERVERS = ("kafka", "postgres", "redis", "s3")
CLIENT = "client"


class Look(msgspec.Struct, frozen=True):
    """Everything that is counted, at one moment."""

    at: float
    cpu: Usage
    steps: int
    """Plans and Tasks in the log."""
    entries: int
    commits: int
    wal: int
    """Bytes of write-ahead log."""
    stored: int
    """Bytes of the tables and their indexes."""
    traffic: dict[str, Traffic]


class Window(msgspec.Struct, frozen=True):
    """What lies between two looks."""

    seconds: float
    steps: int
    cpu: Usage
    """Seconds of CPU."""
    entries: int
    commits: int
    wal: int
    stored: int
    traffic: dict[str, Traffic]

    def cores(self) -> Usage:
        """Cores that each was busy with, on the average."""
        return {name: spent / self.seconds for name, spent in self.cpu.items()}

    def per_step(self) -> Usage:
        """Milliseconds of CPU a step."""
        return {name: 1e3 * spent / max(self.steps, 1) for name, spent in self.cpu.items()}


_COUNTS = """
SELECT coalesce(sum(seq), 0)::bigint AS entries,
  coalesce(sum(seq - 1 - (finished_at IS NOT NULL)::int), 0)::bigint AS steps -- without `started` and the end
FROM heads
"""
_SIZES = """
SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS wal,
  (SELECT sum(xact_commit)::bigint FROM pg_stat_database WHERE datname = current_database()) AS commits,
  (SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')) AS stored
"""


async def look(deployment: Deployment) -> Look:
    """A look. The CPU is read first, so that looking counts for what comes after it."""
    named = deployment.pids | {CLIENT: [os.getpid()]}
    cpu, at = processes.cpu_seconds(named), time.monotonic()
    cpu[CLIENT] = time.process_time()
    (sizes,) = await deployment.database.fetch(_SIZES)
    (counts,) = await deployment.database.fetch(_COUNTS)
    traffic = segments.traffic(deployment.logs, deployment.prefix)
    return Look(
        at, cpu, counts["steps"], counts["entries"], sizes["commits"] or 0, sizes["wal"], sizes["stored"] or 0, traffic
    )  # fmt: skip


def between(before: Look, after: Look) -> Window:
    """What was used from one look to the next."""
    return Window(
        after.at - before.at,
        after.steps - before.steps,
        processes.less(after.cpu, before.cpu),
        after.entries - before.entries,
        after.commits - before.commits,
        after.wal - before.wal,
        after.stored - before.stored,
        segments.less(after.traffic, before.traffic),
    )
