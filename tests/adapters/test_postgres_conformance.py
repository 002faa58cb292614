"""The Postgres store keeps the promises of the ports: the log and the read model, dead letters, ledger, policies."""

from __future__ import annotations

import pytest

from tests.adapters.postgres_stores import OnPostgres, postgres_schema, postgres_url
from tickwork.testing.conformance import (
    DeadLettersConformance,
    LedgerConformance,
    PoliciesConformance,
    StateStoreConformance,
)
from tickwork.testing.conformance.admission import always, demand
from tickwork.testing.conformance.checks import equal
from tickwork.testing.conformance.specimens import append
from tickwork.testing.conformance.spent import spent

pytestmark = pytest.mark.servers

__all__ = ["postgres_schema", "postgres_url"]


class TestPostgres(OnPostgres, StateStoreConformance):
    pass


class TestLettersOnPostgres(OnPostgres, DeadLettersConformance):
    pass


class TestLedgerOnPostgres(OnPostgres, LedgerConformance):
    async def test_a_restart_forgets_reservations(self) -> None:
        """It does not: another process may still run what was sent out. They end with the record all the same."""
        store = await self.open()
        await store.start()
        life = await self.made(store, 1)
        await store.admit([demand(life, 1), demand(life, 2)], always)
        again = await self.reopen(store)
        try:
            equal(await self.held(again), (2, 200), "what is reserved stays reserved")
            await again.admit([demand(life, 1), demand(life, 2)], always)
            equal(await self.held(again), (2, 200), "each once")
            await again.append([append(life, spent(life, 1)), append(life, spent(life, 2))])
            equal(await self.held(again), (0, 0), "until it is recorded")
        finally:
            await again.stop()


class TestPoliciesOnPostgres(OnPostgres, PoliciesConformance):
    pass
