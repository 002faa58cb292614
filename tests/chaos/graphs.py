"""The graphs as executors load them, with their ledger in the file that the environment names.

They are those of the crash sweep (tests/acceptance/crash_shapes.py): every call of user code is one line, synced before
anything else happens. Several processes append to the same file; a line is one write.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.acceptance import crash_shapes
from tests.acceptance.crash_points import BLOB_LIMIT
from tickwork import payloads

LEDGER = "CHAOS_LEDGER"
PACE = "CHAOS_PACE"

ATTRIBUTES = ("line", "loop", "parallel", "nested", "wait", "retry", "small", "parent", "final")
"""What an executor is to serve, by the names here; a child's graph comes before its parent's."""

payloads.INLINE_LIMIT = BLOB_LIMIT  # many small blobs, without moving megabytes

if LEDGER in os.environ:
    crash_shapes.ledger.open(Path(os.environ[LEDGER]))
    crash_shapes.pace.seconds = float(os.environ.get(PACE, "0.1"))

line = crash_shapes.line()
loop = crash_shapes.loop()
parallel = crash_shapes.parallel()
nested = crash_shapes.nested()
wait = crash_shapes.wait()
retry = crash_shapes.retry()
small = crash_shapes.small()
parent = crash_shapes.parent()
final = crash_shapes.final()
