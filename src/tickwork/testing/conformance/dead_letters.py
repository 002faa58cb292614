"""What every adapter of the DeadLetters port has to do: keep each letter once, as it came, for its tenant alone."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from tickwork.testing.conformance.checks import SettableClock, equal, expect
from tickwork.testing.conformance.specimens import letter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tickwork.ports import StateAdapter


class DeadLettersConformance:
    """Subclass it, and implement `open` and `reopen` as for the StateStore."""

    most = 10_000
    """Letters that are kept of one tenant."""

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

    async def test_a_letter_comes_back_as_it_was_buried(self) -> None:
        """Byte for byte, headers included, also after a restart; and it is kept once."""
        store = await self.open()
        await store.start()
        letters = sorted((letter(n) for n in range(7)), key=lambda one: one.letter_id)
        await store.bury(letters[:5])
        await store.bury([letters[0], letters[5], letters[6], letters[6]])
        await asyncio.gather(*(store.bury(letters) for _ in range(5)))
        await store.bury([])
        again = replace(letters[0], reason="another reason", at=letters[0].at + 99)
        await store.bury([again])
        equal(await store.dead_letters("acme"), letters, "each of them once, by id, as it was first")
        store = await self.reopen(store)
        try:
            equal(await store.dead_letters("acme"), letters, "also after a restart")
        finally:
            await store.stop()

    async def test_letters_are_read_in_pages(self) -> None:
        """By id: pages neither repeat nor skip."""
        async with self.opened() as store:
            await store.bury([letter(n) for n in range(11)])
            walked: list[str] = []
            while page := await store.dead_letters("acme", 3, walked[-1] if walked else ""):
                expect(len(page) <= 3, "no more than asked for")
                walked += [one.letter_id for one in page]
            equal(walked, sorted(letter(n).letter_id for n in range(11)), "every letter once, by id")

    async def test_a_letter_is_its_tenants_alone(self) -> None:
        """Neither read nor forgotten by another tenant, also under the same id."""
        async with self.opened() as store:
            mine = letter(1)
            theirs = replace(mine, tenant_id="umbrella", reason="theirs")
            await store.bury([mine, theirs])
            equal(await store.dead_letters("acme"), [mine], "one tenant's")
            equal(await store.dead_letters("umbrella"), [theirs], "the other's, under the same id")
            equal(await store.dead_letters("nobody"), [], "nobody's")
            equal(await store.forget_dead_letter("nobody", mine.letter_id), False, "nobody has one to forget")
            equal(await store.forget_dead_letter("acme", mine.letter_id), True, "a letter can be forgotten")
            equal(await store.forget_dead_letter("acme", mine.letter_id), False, "once")
            equal(await store.dead_letters("acme"), [], "then it is gone")
            equal(await store.dead_letters("umbrella"), [theirs], "and the other tenant's is there")
            await store.bury([mine])
            equal(await store.dead_letters("acme"), [mine], "what was forgotten can be buried again")

    async def test_what_is_said_about_a_letter_is_bounded(self) -> None:
        """A reason of any length is kept in part; the message itself is kept whole."""
        async with self.opened() as store:
            message = bytes(range(256)) * 8_000
            long = replace(letter(1, reason="x" * 1_000_000, value=message), headers={"why": "y" * 1_000_000})
            odd = letter(2, reason="\ud800 and \0")
            await store.bury([long, odd])
            found = {one.letter_id: one for one in await store.dead_letters("acme")}
            kept = found[long.letter_id]
            equal(kept.value, message, "a message is never cut: it is to be sent again")
            expect(kept.reason.startswith("xxxx") and len(kept.reason) < 20_000, "a reason is cut")
            expect(len((kept.headers or {})["why"]) < 20_000, "and so is a header")
            expect("and" in found[odd.letter_id].reason, "text that no UTF-8 has is no hindrance")

    async def test_the_oldest_go_first(self) -> None:
        """A tenant that has too many loses the oldest, and no other tenant's go."""
        async with self.opened() as store:
            await store.bury([letter(0, "umbrella")])
            made = [letter(n) for n in range(self.most + 3)]
            for start in range(0, len(made), 5_000):
                await store.bury(made[start : start + 5_000])
            kept: list[str] = []
            while page := await store.dead_letters("acme", 5_000, kept[-1] if kept else ""):
                kept += [one.letter_id for one in page]
            equal(set(kept), {one.letter_id for one in made[3:]}, f"the newest {self.most:,} are kept")
            equal(len(await store.dead_letters("umbrella")), 1, "another tenant's are not counted")
