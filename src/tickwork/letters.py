"""The use cases around what could not be done: messages that nobody could handle, and executions that are parked.

A message that cannot be decoded, or that the store refuses, goes to the dead letters; an execution whose workers were
lost again and again waits as poison. Both stand still until a person looks at them here and sends them again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from tickwork.edge import legal_tenant
from tickwork.errors import Conflict, NotFound, UsageError
from tickwork.model import messages
from tickwork.model.ids import DEFAULT_TENANT
from tickwork.ports import BusMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tickwork.model.lifetime import Question
    from tickwork.model.messages import DeadLetter
    from tickwork.ports import Clock, EventBus, StateAdapter
    from tickwork.service import Service

PAGE = 1_000
"""Letters read at once; and how many parked executions are listed."""

CANDIDATES = 5
"""How many letters an ambiguous prefix names."""

LOOK = 0.02
"""Seconds between two looks at whether what was sent again is handled."""

PATIENCE = 10.0
"""Seconds that `resend` waits to see what becomes of a message. On a busy bus there is always one under way."""

DECODERS: dict[str, Callable[[bytes], msgspec.Struct]] = {
    messages.DATA_PLANE: messages.decode_append,
    messages.CONTROL_PLANE: messages.decode_committed,
    messages.TASK_INPUTS: messages.decode_input,
    messages.PLAN_INPUTS: messages.decode_input,
    messages.CANCELLATIONS: messages.decode_cancel,
    messages.RECEIPTS: messages.decode_receipt,
}
"""What reads the messages of a topic, by the topic's name without its tenant."""

PLANES = (messages.DATA_PLANE, messages.CONTROL_PLANE, messages.DEAD_LETTERS)
"""The topics whose groups bear their name: what is left on them is not handled yet."""


class Undelivered(msgspec.Struct, kw_only=True):
    """A message or an execution that waits for a person. `id` is the letter's, or the execution's."""

    id: str
    kind: Literal["message", "execution"]
    lifetime_id: str
    """The message's key, which is the lifetime's id unless that is what is wrong with it."""
    since: int
    reason: str
    topic: str = ""
    node: str = ""
    branch: str = ""

    @property
    def what(self) -> str:
        """In words."""
        return f"message on {self.topic}" if self.kind == "message" else f"execution of {self.node}"


class Resent(msgspec.Struct, kw_only=True):
    """What became of something that was sent again: `back` is why it is a dead letter once more; empty: it is not."""

    item: Undelivered
    back: str = ""


Letter: TypeAlias = "DeadLetter | Question"
# Inside the class `list` is the use case of that name.
Found: TypeAlias = "list[Undelivered]"
Questions: TypeAlias = "list[Question]"


class Letters:
    """List, show, resend: what is parked is in the store's read model, what nobody could handle in its other half."""

    def __init__(self, store: StateAdapter, bus: EventBus, service: Service, clock: Clock) -> None:
        self._store, self._bus, self._service, self._clock = store, bus, service, clock

    async def list(self, *, tenant: str = DEFAULT_TENANT) -> Found:
        """All dead letters of a tenant and its parked executions, the oldest first."""
        found = [_of_question(question) for question in await self._parked(legal_tenant(tenant))]
        after = ""
        while page := await self._store.dead_letters(tenant, PAGE, after):
            found += [_of_letter(letter) for letter in page]
            after = page[-1].letter_id
        return sorted(found, key=lambda item: (item.since, item.id))

    async def show(self, item_id: str, *, tenant: str = DEFAULT_TENANT) -> tuple[Undelivered, Letter]:
        """One of them, by its id or a unique prefix, with the letter or question itself. NotFound, UsageError."""
        found: dict[str, tuple[Undelivered, Letter]] = {}
        if item_id.isascii() and item_id.isalnum():
            for question in await self._parked(legal_tenant(tenant)):
                found[question.exec_id] = _of_question(question), question
            before = item_id[:-1] + chr(ord(item_id[-1]) - 1) + "\U0010ffff"  # no id lies between it and the prefix
            for letter in await self._store.dead_letters(legal_tenant(tenant), CANDIDATES, before):
                found[letter.letter_id] = _of_letter(letter), letter
        fits = [name for name in found if name.startswith(item_id)]
        if item_id not in found and len(fits) > 1:
            raise UsageError(f"`{item_id}` fits several dead letters: {', '.join(fits)}; give more of the id")
        if not fits:
            raise NotFound(f"no dead letter `{item_id}` for tenant `{tenant}`; `tickwork dead-letters list` shows them")
        return found.get(item_id) or found[fits[0]]

    async def resend(self, item_id: str, *, tenant: str = DEFAULT_TENANT, force: bool = False, by: str = "") -> Resent:
        """Publishes the message once more on its topic, or has the parked execution run once more.

        Raises Conflict, and changes nothing, when nobody here could read the message now either; `force` sends it all
        the same, for a worker of another version. Never when it would go to another tenant.
        """
        item, what = await self.show(item_id, tenant=tenant)
        if not isinstance(what, messages.DeadLetter):
            await self._service.reconcile(item.lifetime_id, tenant=tenant, exec_id=item.id, retry=True, by=by)
            return Resent(item=item)
        if what.topic.partition(".")[2] != tenant:
            raise Conflict(f"the message {item.id} came from {item.topic}, which is no topic of tenant `{tenant}`")
        unreadable = why_unreadable(what)
        if unreadable and not force:
            raise Conflict(
                f"the message {item.id} on {item.topic} would only come back: {unreadable}. Run a Tickwork of the "
                "version that wrote it, or send it all the same with --force; nothing was changed"
            )
        # Forgotten first: one that is refused again is buried again meanwhile, and that letter has to stay. What a
        # crash in between loses was under way all the same: the log knows what is outstanding, and asks for it again.
        await self._store.forget_dead_letter(tenant, item.id)
        try:
            await self._bus.publish(what.topic, [BusMessage(what.key, what.value, what.headers)])
        except BaseException:
            await self._store.bury([what])
            raise
        await self.settled(tenant, PATIENCE)
        try:
            again, _ = await self.show(item.id, tenant=tenant)
        except NotFound:
            return Resent(item=item)
        return Resent(item=item, back=again.reason)

    async def settled(self, tenant: str, patience: float | None = None) -> bool:
        """Waits until this tenant's planes have nothing left to handle, at most `patience` seconds: whether."""
        until = None if patience is None else self._clock.monotonic() + patience
        while True:
            await self._clock.sleep(LOOK)
            if not any(self._bus.depth(messages.topic(plane, tenant), plane) for plane in PLANES):
                return True
            if until is not None and self._clock.monotonic() >= until:
                return False

    async def _parked(self, tenant: str) -> Questions:
        return await self._store.questions(tenant, limit=PAGE, on="poison")


def why_unreadable(letter: DeadLetter) -> str:
    """Why nobody here could decode the message now; empty when somebody could."""
    decode = DECODERS.get(letter.topic.partition(".")[0])
    if decode is None:
        return f"this version serves no topic {letter.topic}"
    try:
        decode(letter.value)
    except msgspec.MsgspecError as error:
        return f"it cannot be decoded: {error}"
    return ""


def _of_letter(letter: DeadLetter) -> Undelivered:
    return Undelivered(
        id=letter.letter_id,
        kind="message",
        lifetime_id=letter.key,
        since=letter.at,
        reason=letter.reason,
        topic=letter.topic,
    )


def _of_question(question: Question) -> Undelivered:
    return Undelivered(
        id=question.exec_id,
        kind="execution",
        lifetime_id=question.lifetime_id,
        since=question.since,
        reason=question.prompt,
        node=question.node,
        branch=question.branch,
    )
