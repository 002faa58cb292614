"""Conformance suites, one a port: what an adapter has to do, as tests that need nothing but the adapter.

Bind an adapter by a subclass that opens it; pytest (with a plugin or a hook that runs `async def` tests) does the rest:

    class TestMyBus(EventBusConformance):
        async def open(self) -> EventBus:
            return MyBus("mybus://localhost")

Every test opens an adapter of its own and stops it. A suite never waits for time to pass, except up to `patience`
seconds for something that has to come.
"""

from __future__ import annotations

from tickwork.testing.conformance.blob_store import BlobStoreConformance
from tickwork.testing.conformance.checks import SettableClock
from tickwork.testing.conformance.dead_letters import DeadLettersConformance
from tickwork.testing.conformance.event_bus import EventBusConformance
from tickwork.testing.conformance.kv_store import KVStoreConformance
from tickwork.testing.conformance.ledger import LedgerConformance
from tickwork.testing.conformance.policies import PoliciesConformance
from tickwork.testing.conformance.state_store import StateStoreConformance

__all__ = [
    "BlobStoreConformance",
    "DeadLettersConformance",
    "EventBusConformance",
    "KVStoreConformance",
    "LedgerConformance",
    "PoliciesConformance",
    "SettableClock",
    "StateStoreConformance",
]
