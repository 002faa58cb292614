"""The contracts between Tickwork and the technology below it: clock, ids, event bus, state store, blobs, key-value.

Read this file and you know what an adapter has to do. Each port says what is guaranteed, what may happen twice and
what is raised; `tickwork.testing.conformance` proves it for every adapter. Capabilities are declared, never sniffed.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, TypeVar

import msgspec

from tickwork.model.spending import Quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tickwork.model.lifetime import Lifetime, Question, TimerRow
    from tickwork.model.messages import Append, DeadLetter
    from tickwork.model.records import LogEntry
    from tickwork.model.spending import Total, UsageQuery, UsageRow

T = TypeVar("T")


class Clock(Protocol):
    """Time, injected. Every process owns one; simulations and tests own a virtual one."""

    def now(self) -> int:
        """Wall time in microseconds since 1970-01-01 UTC. May step."""
        ...

    def monotonic(self) -> float:
        """Seconds that never step back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspends the caller."""
        ...


class Ids(Protocol):
    """Fresh ids, injected. Everything that can be derived from causality is not asked for here."""

    def lifetime_id(self, now: int) -> str:
        """A new UUIDv7 for a lifetime started at `now` (us)."""
        ...

    def token(self) -> str:
        """A short fresh word: a worker's boot id, a request's id."""
        ...


class BusMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message: `key` orders it (messages of one key keep their order), `value` is opaque."""

    key: str
    value: bytes
    headers: dict[str, str] | None = None


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """A message as a consumer gets it. `offset` says where it stands, for acknowledging."""

    topic: str
    message: BusMessage
    offset: int
    redelivered: bool = False


class Subscription(Protocol):
    """One consumer's membership in a group."""

    async def receive(self, max_messages: int, admit: Callable[[str], bool] | None = None) -> list[Delivery]:
        """Waits for at least one message, returns up to `max_messages`, in order per key.

        `admit` is asked for each message, with its topic, before it is handed out. After a False that message and all
        behind it on its topic wait here, and other topics go on; it is asked again when something new comes, and by
        `look_again`. What was received and never acknowledged is delivered again, to this group, after this
        subscription closes. One coroutine receives at a time; it gets [] when the subscription closes meanwhile.
        """
        ...

    def look_again(self) -> None:
        """Has a `receive` that waits ask `admit` again."""
        ...

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Marks messages as done: they are not delivered to this group again. Acknowledge after persisting."""
        ...

    def owns(self, topic: str, key: str) -> bool:
        """Whether messages of this key of `topic` come to this member now, as far as it knows. A hint."""
        ...

    def share(self, topic: str) -> float:
        """The part of this topic's keys that comes to this member now, as far as it knows: 0.0 to 1.0. A hint."""
        ...

    async def close(self) -> None:
        """Leaves the group; unacknowledged messages go to its other members, in order. Twice is fine."""
        ...


class EventBus(Protocol):
    """Moves messages between processes: at least once, in order per (topic, key) and group.

    A hint, never the truth: everything on it can be derived from the log again, so losing all of it costs time only.
    """

    async def start(self) -> None:
        """Connects. Raises StorageError when the broker cannot be reached."""
        ...

    async def stop(self) -> None:
        """Flushes and disconnects. Twice is fine."""
        ...

    async def publish(self, topic: str, messages: Sequence[BusMessage]) -> None:
        """Returns once the bus has accepted all messages. After an error some may have been accepted: send again.

        A topic no group ever subscribed to may drop what is published to it (the in-memory bus does).
        """
        ...

    async def subscribe(self, topics: Sequence[str], group: str, *, from_beginning: bool = False) -> Subscription:
        """Joins `group` on topics, each a name or a prefix ending in `.*` (`data-plane.*`), new ones included.

        Members of one group share the messages; every group gets all published after its first subscription, and, with
        `from_beginning`, what was published before it as far as the bus still has that. All
        messages of a key (in one topic) go to one member at a time. The empty group is a group of its own that ends
        with the subscription: for watchers, and for what every process has to hear.
        """
        ...

    def depth(self, topic: str, group: str) -> int:
        """How many messages of `topic` (or prefix) the group has not acknowledged, as far as this process knows."""
        ...


class StoredGraph(msgspec.Struct, frozen=True):
    """A registered graph: its JSON (`body`), and `source`, where its code can be loaded from."""

    tenant_id: str
    name: str
    version: str
    digest: str
    body: bytes
    source: str
    created_at: int


class LifetimeQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A filter for lists; None matches all. Newest first; `before` is the lifetime id to go on after."""

    statuses: tuple[str, ...] | None = None
    graph: str | None = None
    label: tuple[str, str] | None = None
    before: str | None = None
    limit: int = 50


class Appended(msgspec.Struct, gc=False):
    """What became of one Append. `seqs` has one item an entry: its seq, or None where it was a duplicate.

    `error` is set when this one was refused (unknown lifetime, too large); its neighbours are not affected.
    """

    seqs: tuple[int | None, ...]
    at: int
    error: str | None = None
    last_seq: int = 0
    """The last seq of the lifetime's log after it."""
    differs: tuple[int, ...] = ()
    """Indexes of duplicates whose recorded entry has other bytes."""
    stale: bool = False
    """`expect` did not hold any more, or the lifetime has ended: nothing was done."""


class StateStore(Protocol):
    """Keeps the log of every lifetime, and the read model derived from it. The only truth there is.

    Whatever a method acknowledges by returning survives the loss of the process and of the machine's power. Reads
    see everything acknowledged before. Every read takes the tenant and sees no other tenant's rows.
    Raises StorageFull, StorageError, StoreTooNew, StoreCorrupt.
    """

    async def start(self) -> None:
        """Opens and migrates the database."""
        ...

    async def stop(self) -> None:
        """Finishes what was submitted, then closes. Twice is fine."""
        ...

    async def put_graph(self, graph: StoredGraph) -> None:
        """Registers a graph. Again with the same digest: updates `source` only. GraphConflict on another digest."""
        ...

    async def graphs(
        self, tenant_id: str, *, name: str | None = None, version: str | None = None, digest: str | None = None
    ) -> list[StoredGraph]:
        """Registered graphs that match all that is given, newest registration first."""
        ...

    async def create_lifetime(self, lifetime: Lifetime, started: Append) -> tuple[Lifetime, bool]:
        """Inserts the lifetime and its first entries in one transaction: (it, True).

        When its (tenant, idempotency key) or its id exists already: (the first one, False), and nothing changes.
        `started.ats`, when it is given, is when each entry was recorded in the lifetime whose history this one shares.
        """
        ...

    async def append(self, batch: Sequence[Append]) -> list[Appended]:
        """Adds entries, each at the next seq of its lifetime, all of an Append or none. One result an item, in order.

        A duplicate entry id is dropped and consumes no seq. An Append that is refused does not fail its neighbours.
        The projection of an Append is applied in the same transaction, also when all its entries are duplicates.
        Of a lifetime that has ended only `superseded` entries are recorded; other new ones are dropped (`stale`).
        A question about an execution that is recorded already is not opened: it came late.
        A lifetime that was asked to abort does not become PAUSED any more.
        An Append may have no entries and only a projection. `at` never decreases inside a lifetime. With `expect`, an
        Append is done wholly or, when the lifetime's last seq is another, not at all (`stale`).
        """
        ...

    async def read_log(self, tenant_id: str, lifetime_id: str, after: int = 0, limit: int = 1000) -> list[LogEntry]:
        """Entries with seq > `after`, in order, at most `limit`; [] for an unknown lifetime."""
        ...

    async def read_entries(self, tenant_id: str, lifetime_id: str, seqs: Sequence[int]) -> list[LogEntry]:
        """The entries at these seqs, in the order asked; StoreCorrupt when one is missing."""
        ...

    async def get_lifetime(self, tenant_id: str, id_or_prefix: str) -> list[Lifetime]:
        """The lifetimes whose id begins so (at most 5): one when it is unique, [] when there is none."""
        ...

    async def list_lifetimes(self, tenant_id: str, query: LifetimeQuery) -> list[Lifetime]:
        """Lifetimes that match, newest first."""
        ...

    async def open_lifetimes(
        self, after: str = "", limit: int = 1000, *, status: str | None = None, untouched_since: int | None = None
    ) -> list[Lifetime]:
        """Lifetimes of all tenants that have not ended, by id, with id > `after`. For recovery and the sweeper.

        `status`: only these; `untouched_since` (us): only those whose log and row are as they were at that time.
        """
        ...

    async def due_timers(self, ahead: int = 0, limit: int = 1000) -> tuple[list[TimerRow], int | None]:
        """Timers of all tenants that are due, earliest first; and how long (us) it is until the next one after those.

        By the store's own clock, so that no sweeper fires one early; `ahead`: also those due within so many us.
        """
        ...

    async def questions(
        self, tenant_id: str, lifetime_id: str | None = None, limit: int = 1000, *, on: str | None = None
    ) -> list[Question]:
        """Open waits of a tenant (or of one of its lifetimes), oldest first; `on`: only those that wait for this."""
        ...

    async def ping(self) -> dict[str, str]:
        """Proves that the store answers: facts for `tickwork doctor` (technology, version, schema, durability)."""
        ...


class DeadLetters(Protocol):
    """Where messages go that cannot be handled. Kept beside the log, by the adapter that is the StateStore."""

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keeps these; one that is kept already is not kept twice.

        Of each tenant the newest 10,000 are kept, the oldest goes first; what is said about a letter may be cut, the
        message never is.
        """
        ...

    async def dead_letters(self, tenant_id: str, limit: int = 1000, after: str = "") -> list[DeadLetter]:
        """A tenant's dead letters, by id, with id > `after`."""
        ...

    async def forget_dead_letter(self, tenant_id: str, letter_id: str) -> bool:
        """Removes one; False when there is none."""
        ...


class StoredPolicies(msgspec.Struct, frozen=True):
    """The policy document of one layer (tenant and graph empty: the installation) as it is in force since `at` (us)."""

    tenant_id: str
    graph: str
    digest: str
    body: bytes
    """The JSON of a PolicyDocument; empty: the layer was emptied."""
    at: int
    by: str = ""


class PolicyStore(Protocol):
    """Keeps policy documents, and each set that was ever in force. Implemented by the adapter that is the StateStore.

    Nothing is overwritten: what was in force before stays as history, newest last.
    """

    async def put_policies(self, document: StoredPolicies) -> None:
        """Puts a document in force for its layer, in place of the one before."""
        ...

    async def policies(self, *, history: bool = False) -> list[StoredPolicies]:
        """The documents in force, of all layers; with `history` all that ever were, oldest first."""
        ...

    async def put_policy_set(self, digest: str, body: bytes) -> None:
        """Keeps a set under its digest. Again is fine."""
        ...

    async def policy_set(self, digest: str) -> bytes | None:
        """The set with this digest, or None."""
        ...


class Demand(msgspec.Struct, frozen=True):
    """A dispatch that a tenant's policies have a say in: what it is, and the most that it declares to use."""

    tenant_id: str
    lifetime_id: str
    exec_id: str
    kind: str
    node: str
    graph: str
    labels: dict[str, str]
    tokens: int
    cost_nano_usd: int
    quantities: tuple[Quantity, ...]
    """What has to be known to judge it; these, and no others, are handed to the judge."""


Judge: TypeAlias = "Callable[[Demand, Sequence[Total]], T | None]"
"""Why a demand is refused; None: it is admitted. Pure and quick: it is called inside the atomic step."""


class Over(Enum):
    """Neither refused nor admitted: the execution is recorded, or its lifetime has ended. It is not sent out."""

    OVER = "over"


OVER: Final = Over.OVER


class Ledger(Protocol):
    """What tenants have used and reserved. Implemented by the adapter that is the StateStore.

    Each execution that `append` records for the first time is counted in that same transaction, so a duplicate counts
    once and every process sees the same total: `spending.ran` says which, `superseded` ones with what they used, those
    of a child's end (`spending.CHILD`) not, for the child's own records count. Its reservation ends with it. Likewise
    with a `reconciled` event that has it run again.
    """

    async def admit(self, demands: Sequence[Demand], judge: Judge[T]) -> list[T | Over | None]:
        """Judges demands one after the other in one atomic step, and reserves for those that are admitted (None).

        OVER, unjudged, for one that is recorded already or whose lifetime has ended: whoever asks is behind.

        A reservation is keyed by exec id and counts in the Totals of every Quantity that matches it, for any later
        demand. One that is reserved already is admitted without being judged again. Reservations may be forgotten
        when no process is left that could spend them.
        """
        ...

    async def totals(self, tenant_id: str, quantities: Sequence[Quantity]) -> list[Total]:
        """How these stand now."""
        ...

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """What was used, added up as asked, in the order of the keys."""
        ...

    def track(self, labels: frozenset[str]) -> None:
        """From now on usage is kept apart by these labels of lifetimes too, so that policies can match them."""
        ...


class StateAdapter(StateStore, DeadLetters, PolicyStore, Ledger, Protocol):
    """What an adapter of the state database is: the log's store and what is kept beside it, in one."""


class BlobStore(Protocol):
    """Keeps large payloads, named by their content. A URI is only ever resolved inside the tenant's own prefix."""

    async def start(self) -> None:
        """Makes it ready. StorageError when it cannot be."""
        ...

    async def put(self, tenant_id: str, data: bytes) -> tuple[str, str]:
        """Stores `data` durably unless it is there already: (uri, SHA-256 in hex). StorageFull, StorageError."""
        ...

    async def get(self, tenant_id: str, uri: str, sha256: str | None = None) -> bytes:
        """The bytes behind `uri`. NotFound; StoreCorrupt when they do not match; UsageError on a foreign prefix."""
        ...

    async def stop(self) -> None:
        """Closes. Twice is fine."""
        ...


class KVStore(Protocol):
    """Small, short-lived values that may vanish at any time (leases' hints, rate counters); never the truth."""

    async def start(self) -> None:
        """Connects."""
        ...

    async def get(self, key: str) -> bytes | None:
        """The value, or None when there is none or it expired."""
        ...

    async def put(self, key: str, value: bytes, ttl: float | None = None, *, if_absent: bool = False) -> bool:
        """Sets it for `ttl` seconds (None: no end). With `if_absent`, only when there is none: False if there is."""
        ...

    async def replace(self, key: str, old: bytes, new: bytes, ttl: float) -> bool:
        """Sets it to `new` for `ttl` seconds if it is `old` now, in one step; else False."""
        ...

    async def delete(self, key: str) -> None:
        """Removes it; fine when it is not there."""
        ...

    async def stop(self) -> None:
        """Closes. Twice is fine."""
        ...
