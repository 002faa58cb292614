"""What every adapter of the PolicyStore port has to do: keep documents and sets as they are, and all of the history."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from tickwork.ports import StoredPolicies
from tickwork.testing.conformance.checks import SettableClock, equal
from tickwork.testing.conformance.specimens import BEGAN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tickwork.ports import StateAdapter


def document(number: int, tenant: str = "", graph: str = "", body: bytes | None = None) -> StoredPolicies:
    """The document of this number, put in force a microsecond after the one before."""
    made = b'{"policies":[],"n":%d}' % number if body is None else body
    return StoredPolicies(tenant, graph, f"sha256:{number:064x}", made, BEGAN + number, "ann")


class PoliciesConformance:
    """Subclass it, and implement `open` and `reopen` as for the StateStore."""

    def setup_method(self) -> None:
        """Gives each test a clock of its own."""
        self.clock = SettableClock()

    async def open(self) -> StateAdapter:
        """An empty store, not started, that runs by `self.clock`."""
        raise NotImplementedError

    async def reopen(self, store: StateAdapter) -> StateAdapter:
        """Stops `store` and returns another one, started, on what it keeps; or it as it is, when it keeps nothing."""
        raise NotImplementedError

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[StateAdapter]:
        """A started store, stopped afterwards."""
        store = await self.open()
        await store.start()
        try:
            yield store
        finally:
            await store.stop()

    async def test_the_newest_document_of_a_layer_is_in_force(self) -> None:
        """Each layer has its own; what was before is history; all of it survives a restart."""
        store = await self.open()
        await store.start()
        equal((await store.policies(), await store.policies(history=True)), ([], []), "nothing was put in force")
        made = [
            document(1),
            document(2, "acme"),
            document(3, "acme", "hello"),
            document(4, "", "hello"),
            document(5, "umbrella", "hello"),
            document(6, "acme"),
            document(7),
            document(8, "acme"),
        ]
        for one in made:
            await store.put_policies(one)
        wanted = [made[6], made[3], made[7], made[2], made[4]]
        equal(await store.policies(), wanted, "one a layer, by tenant and graph")
        equal(await store.policies(history=True), made, "all of them, oldest first")
        store = await self.reopen(store)
        try:
            equal(await store.policies(), wanted, "also after a restart")
            equal(await store.policies(history=True), made, "with all that was before")
        finally:
            await store.stop()

    async def test_a_layer_can_be_emptied(self) -> None:
        """By an empty body: then it has none, until another one comes."""
        async with self.opened() as store:
            first, emptied = document(1, "acme"), document(2, "acme", body=b"")
            for one in (first, document(3), emptied):
                await store.put_policies(one)
            equal(await store.policies(), [document(3)], "it has none, and others keep theirs")
            equal(await store.policies(history=True), [first, document(3), emptied], "which history tells")
            back = replace(first, at=BEGAN + 9)
            await store.put_policies(back)
            equal(await store.policies(), [document(3), back], "what was there before may come back")

    async def test_what_is_in_force_is_put_once(self) -> None:
        """Again after an answer that was lost, it changes nothing."""
        async with self.opened() as store:
            first = document(1, "acme")
            await asyncio.gather(*(store.put_policies(first) for _ in range(5)))
            await store.put_policies(replace(first, at=BEGAN + 99, by="bob"))
            equal(await store.policies(history=True), [first], "once, as it was first")

    async def test_a_set_is_kept_under_its_digest(self) -> None:
        """Byte for byte; again is fine, and nothing is ever overwritten."""
        store = await self.open()
        await store.start()
        equal(await store.policy_set("sha256:a"), None, "there is none")
        body = bytes(range(256))
        await asyncio.gather(*(store.put_policy_set("sha256:a", body) for _ in range(3)))
        await store.put_policy_set("sha256:a", b"another")
        await store.put_policy_set("sha256:b", b"")
        store = await self.reopen(store)
        try:
            equal(await store.policy_set("sha256:a"), body, "as it was first")
            equal(await store.policy_set("sha256:b"), b"", "empty ones too")
            equal(await store.policy_set("sha256:c"), None, "no other one")
        finally:
            await store.stop()
