"""Which policies are in force: documents from files and from the store, compiled once, looked at again every second.

A lifetime is pinned to a set by its log, so a set is kept in the store, under its digest, before any log names it.
Documents that have problems change nothing: what was in force stays in force, and the log says why.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from tickwork.errors import StoreCorrupt, TickworkError
from tickwork.model.policy import PolicyDocument, PolicySet, decode_set, effective, encode_set
from tickwork.orchestrator.guardrails.rules import Rules

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tickwork.ports import Clock, Ledger, PolicyStore

log = logging.getLogger(__name__)

REFRESH = 1.0
"""Seconds between two looks at files and store."""

KNOWN = 1_000
"""Compiled sets that are remembered."""

NO_POLICIES = PolicySet()
NO_RULES = Rules(NO_POLICIES)


class PolicyIndex:
    """Sets by tenant and graph, and compiled sets by digest. `files` reads the documents that lie in files."""

    def __init__(
        self,
        store: PolicyStore,
        ledger: Ledger,
        clock: Clock,
        files: Callable[[], Sequence[PolicyDocument]] | None = None,
    ) -> None:
        self._store, self._ledger, self._clock = store, ledger, clock
        self._files = files
        self._documents: tuple[PolicyDocument, ...] = ()
        self._current: dict[tuple[str, str, str], Rules] = {}
        self._known: dict[str, Rules] = {"": NO_RULES}
        self._kept: set[str] = set()
        self._trouble = ""
        self.counts = {"reloads": 0, "invalid": 0}
        """How often the documents changed, and how often they could not be taken, since the start."""

    @property
    def documents(self) -> tuple[PolicyDocument, ...]:
        """The documents in force, of files first."""
        return self._documents

    async def start(self) -> None:
        """Loads everything. Raises PolicyInvalid, ConditionError: nothing starts with what cannot be enforced."""
        self._take(await self._read())

    async def run(self) -> None:
        """Looks again and again, until cancelled."""
        while True:
            await self._clock.sleep(REFRESH)
            await self.refresh()

    async def refresh(self) -> None:
        """Takes what has changed. Documents with problems are left out of force, and named in the log once."""
        try:
            self._take(await self._read())
            self._trouble = ""
        except TickworkError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self.counts["invalid"] += 1
                log.error("policies were not loaded, those from before stay in force: %s", error)  # noqa: TRY400 - a user's mistake has no traceback

    async def _read(self) -> tuple[PolicyDocument, ...]:
        found = list(self._files()) if self._files is not None else []
        for stored in await self._store.policies():
            if stored.body:
                found.append(decode_document(stored.body))
        return tuple(found)

    def _take(self, documents: tuple[PolicyDocument, ...]) -> None:
        if documents == self._documents:
            return
        for document in documents:
            Rules(effective((document,), document.tenant, document.graph))  # what does not compile is not taken
        labels = {
            label
            for document in documents
            for policy in document.policies
            if policy.scope == "tenant"
            for label in policy.match.labels
        }
        self._ledger.track(frozenset(labels))
        self._documents = documents
        self._current.clear()
        self.counts["reloads"] += 1

    # -- what is in force ---------------------------------------------------------------------------------------------

    def current(self, tenant: str, graph: str, run: PolicySet = NO_POLICIES) -> Rules:
        """The rules for lifetimes of this graph; `run`: what one of them was given for itself."""
        if not self._documents and not run.policies:
            return NO_RULES
        key = (tenant, graph, run.digest)
        found = self._current.get(key)
        if found is None:
            self._forget_some()
            policies = PolicySet(policies=effective(self._documents, tenant, graph).policies + run.policies)
            found = self._current[key] = self._known.get(policies.digest) or Rules(policies)
            self._known[found.digest] = found
        return found

    def _forget_some(self) -> None:
        """Sets that single lifetimes were given come and go; those in use are held by who uses them."""
        if len(self._known) >= KNOWN:
            self._current.clear()
            for digest in list(self._known)[1 : KNOWN // 2]:
                del self._known[digest]

    async def pin(self, rules: Rules) -> str:
        """Makes sure that a log may name this set: its digest."""
        if rules.digest and rules.digest not in self._kept:
            await self._store.put_policy_set(rules.digest, encode_set(rules.policies))
            self._known[rules.digest] = rules
            self._kept.add(rules.digest)
        return rules.digest

    def rules(self, digest: str) -> Rules:
        """The rules of a digest that `ensure` has seen. Raises LookupError."""
        found = self._known.get(digest)
        if found is None:
            raise LookupError(f"the policy set {digest} was not loaded")
        return found

    async def ensure(self, digest: str) -> None:
        """Loads the set of a digest that a log names. Raises StoreCorrupt when the store does not have it."""
        if digest in self._known:
            return
        body = await self._store.policy_set(digest)
        if body is None:
            raise StoreCorrupt(f"the policy set {digest} is missing in the store; the log names it. Restore a backup.")
        self._known[digest] = Rules(decode_set(body))
        self._kept.add(digest)


def decode_document(body: bytes) -> PolicyDocument:
    """A stored document. Raises StoreCorrupt."""
    try:
        return msgspec.json.decode(body, type=PolicyDocument)
    except msgspec.DecodeError as error:
        raise StoreCorrupt(f"a stored policy document cannot be read: {error}") from None
