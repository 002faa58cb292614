"""Every error that Tickwork raises on purpose, in one tree.

    Exception
    ├── TickworkError             something a person has to read; carries `code` and `exit_code`
    │   ├── UsageError            the caller's words are wrong: a bad flag, input that is no JSON        (exit 2)
    │   │   └── MissingExtra      it needs a package that is not installed; the message names the extra
    │   ├── GraphInvalid          a graph with problems, all of them listed                             (exit 4)
    │   ├── PolicyInvalid         policies with problems, all of them listed                            (exit 4)
    │   ├── AnswerRefused         an answer or a signal that breaks its schema, or by the wrong person  (exit 2)
    │   ├── NotFound              no such lifetime, graph, node, question                               (exit 13)
    │   ├── Conflict              it contradicts what is recorded already                               (exit 1)
    │   │   ├── GraphConflict     the same name@version with another digest
    │   │   └── AlreadyEnded      the lifetime has ended, or the question was answered
    │   ├── Overloaded            too much moves here already; try again                            (exit 1)
    │   ├── HomeInUse             another process runs on this home                                     (exit 1)
    │   └── StorageError          the disk, the database or the blob store refused                      (exit 1)
    │       ├── StoreTooNew       the database was written by a newer Tickwork
    │       ├── StoreCorrupt      what was read is not what was written
    │       └── StorageFull       no space left; nothing recorded was lost
    └── AuthorError               what the author of a node may raise
        ├── RetryableError        this attempt failed, another may succeed; honours `retry_after`
        └── TerminalError         no attempt will ever succeed: do not retry

`code` is a stable word for machines (the wire, `--json`); `exit_code` is what the command line returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tickwork.model.problems import Problem


class TickworkError(Exception):
    """Base of all errors that speak to a person. The message says what happened, where, and what to do next."""

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1


class UsageError(TickworkError):
    """The caller asked in a way that cannot be understood."""

    code = "invalid_argument"
    exit_code = 2


class MissingExtra(UsageError):
    """Optional technology that is not installed."""

    code = "missing_extra"

    @classmethod
    def of(cls, what: str, extra: str, error: ModuleNotFoundError) -> MissingExtra:
        """`what` (with its verb: `a Kafka bus needs`) cannot be had without an extra; `error` names what is missing."""
        return cls(f"{what} the extra {extra}, and there is no module `{error.name}`: pip install 'tickwork[{extra}]'")


class _Invalid(TickworkError):
    """Something a person wrote has problems. `problems` lists every one of them, each with its place."""

    exit_code = 4
    where: ClassVar[str]

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = "\n".join(str(p) for p in self.problems)
        super().__init__(f"{count} problem{'s' if count != 1 else ''} in the {self.where}:\n{lines}")


class GraphInvalid(_Invalid):
    """A graph has problems."""

    code = "graph_invalid"
    where = "graph"


class PolicyInvalid(_Invalid):
    """Policies have problems."""

    code = "policy_invalid"
    where = "policies"


class AnswerRefused(TickworkError):
    """An answer that does not fit its question; nothing was changed."""

    code = "answer_refused"
    exit_code = 2


class NotFound(TickworkError):
    """What was named does not exist for this tenant."""

    code = "not_found"
    exit_code = 13


class Conflict(TickworkError):
    """The request contradicts what is already recorded."""

    code = "conflict"


class GraphConflict(Conflict):
    """The same graph name and version is registered with another digest."""

    code = "graph_conflict"
    hint: ClassVar[str] = (
        "The version stands in `version:` (YAML, JSON), `Graph(name, version)` (Python), `version=` (DOT), or "
        '`%% tickwork: {"version": "0.2.0"}` (Mermaid); without one it is 0.1.0.'
    )


class AlreadyEnded(Conflict):
    """The lifetime has ended, or the question was answered before."""

    code = "already_ended"


class Overloaded(TickworkError):
    """More moves in this process than it may: new work is refused, so that what runs can go on. Try again later."""

    code = "unavailable"


class HomeInUse(TickworkError):
    """Another process holds this home, and a home has one writing process at a time."""

    code = "home_in_use"


class StorageError(TickworkError):
    """The storage below refused. What was acknowledged before stays recorded."""

    code = "storage"


class ServerAway(StorageError):
    """A server cannot be reached, is starting, or takes nothing now: the same may succeed a little later."""


class StoreTooNew(StorageError):
    """The database was written by a newer Tickwork than this one."""

    code = "store_too_new"


class StoreCorrupt(StorageError):
    """Bytes read back are not the bytes that were written."""

    code = "store_corrupt"


class StorageFull(StorageError):
    """No space is left on the device. Nothing that was acknowledged is lost; free space and resume."""

    code = "storage_full"


class AuthorError(Exception):
    """Base of the two errors that an author raises from a Task or a Plan."""

    def __init__(self, message: str = "", *, details: Any = None) -> None:
        super().__init__(message)
        self.details = details


class RetryableError(AuthorError):
    """This attempt failed but another may succeed.

    `retry_after` (seconds) asks for at least that delay before the next attempt; the node's `max_attempts` still
    holds.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None, details: Any = None) -> None:
        super().__init__(message, details=details)
        self.retry_after = retry_after


class TerminalError(AuthorError):
    """No attempt will ever succeed: the execution fails at once, whatever the retry policy says."""
