"""What is checked before anything is done: names, keys, labels, ids and answers as they come from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tickwork.errors import AnswerRefused, NotFound, Overloaded, UsageError
from tickwork.model.ids import TENANT
from tickwork.model.records import ERROR_TEXT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tickwork.model.lifetime import Lifetime, Question
    from tickwork.ports import StateStore

IDEMPOTENCY_KEY_LIMIT = 256
LABEL_LIMIT = 64


def check_idempotency_key(key: str | None) -> None:
    """A key is short and printable, or absent."""
    if key is not None and not (0 < len(key) <= IDEMPOTENCY_KEY_LIMIT and key.isprintable()):
        raise UsageError(f"an idempotency key has 1 to {IDEMPOTENCY_KEY_LIMIT} printable characters")


def legal_tenant(tenant: str) -> str:
    """The tenant, once it is known to be a legal name: it becomes part of topics, paths and keys."""
    if not TENANT.fullmatch(tenant):
        raise UsageError(f"`{tenant}` is no tenant name: letters, digits, `-` and `_`, at most 63, no leading dash")
    return tenant


def check_labels(labels: Mapping[Any, Any]) -> None:
    """Labels are few, short and text; those of Tickwork's own are not a caller's to set."""
    if len(labels) > LABEL_LIMIT:
        raise UsageError(f"at most {LABEL_LIMIT} labels, these are {len(labels)}")
    for key, value in labels.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise UsageError(f"labels are text: {key!r}={value!r}")
        if not key or len(key) + len(value) > 1024 or not (key + value).isprintable():
            raise UsageError(f"a label has 1 to 1024 printable characters: {key[:40]!r}")
        if key.startswith("tickwork."):
            raise UsageError(f"labels that begin with `tickwork.` are kept for Tickwork itself: {key}")


def check_words(*words: str) -> None:
    """What somebody says (a reason, his name) is read by people in lists and logs, so it is bounded."""
    for text in words:
        if len(text) > ERROR_TEXT_LIMIT:
            raise UsageError(f"a reason or a name has at most {ERROR_TEXT_LIMIT:,} characters, this has {len(text):,}")


def check_answer(question: Question, payload: Any) -> None:
    """Raises AnswerRefused with every way in which the answer breaks its schema."""
    import jsonschema  # imported at the first answer: it takes longer to load than everything else

    validator = jsonschema.Draft202012Validator(question.answer_schema or {})
    errors = sorted(validator.iter_errors(payload), key=lambda e: [str(p) for p in e.absolute_path])
    if errors:
        listed = "; ".join(f"{e.json_path}: {e.message}" for e in errors[:10])
        raise AnswerRefused(
            f"the answer to `{question.node}` does not fit its schema, and nothing was changed: {listed}"
        )


def check_pressure(pressure: Callable[[], float] | None) -> None:
    """Raises Overloaded while this process moves as many lifetimes as it may (1 and more)."""
    if pressure is not None and pressure() >= 1:
        raise Overloaded(
            "this process moves as many lifetimes as it may, and takes no new one until some have ended or wait; "
            "nothing was started. Try again in a moment, or raise `max_moving`"
        )


async def one_lifetime(store: StateStore, tenant: str, lifetime_id: str) -> Lifetime:
    """The lifetime with this id or unique id prefix. Raises NotFound; UsageError when the prefix fits several."""
    found = await store.get_lifetime(legal_tenant(tenant), lifetime_id) if lifetime_id else []
    if not found:
        raise NotFound(f"no lifetime `{lifetime_id}` for tenant `{tenant}`; `tickwork lifetimes list` shows them")
    if len(found) > 1:
        several = ", ".join(lifetime.lifetime_id for lifetime in found)
        raise UsageError(f"`{lifetime_id}` fits several lifetimes: {several}; give more of the id")
    return found[0]
