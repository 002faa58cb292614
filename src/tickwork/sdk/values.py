"""What authors get and what they return.

A Task is given a TaskInput, a Plan a PlanInput: the value, the executions before it, and where it stands in the
lifetime. Both read the message from the Control Plane lazily: a node that wants only its value pays for nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from tickwork.model.graph import END
from tickwork.model.messages import NodeInput, Predecessor
from tickwork.model.records import Error, Payload, Status, payload_value

if TYPE_CHECKING:
    from tickwork.sdk.context import Context

__all__ = ["END", "Next", "PastExecution", "PlanInput", "PlanResult", "TaskInput"]


class PastExecution:
    """An execution before this node: who, where, how it ended, and its value or its error."""

    __slots__ = ("_record", "_value")

    def __init__(self, record: Predecessor) -> None:
        self._record = record
        self._value: Any = msgspec.UNSET

    @property
    def exec_id(self) -> str:
        """The id of the execution."""
        return self._record.exec_id

    @property
    def name(self) -> str:
        """The node that ran."""
        return self._record.name

    @property
    def kind(self) -> Literal["task", "plan"]:
        """Whether it was a Task or a Plan."""
        return self._record.kind

    @property
    def branch(self) -> str:
        """The branch it ran in; the empty string outside any fan-out."""
        return self._record.branch

    @property
    def iteration(self) -> int:
        """How often the node had run before in that branch."""
        return self._record.iteration

    @property
    def status(self) -> Status:
        """SUCCEEDED, FAILED, TIMED_OUT or CANCELLED."""
        return self._record.status

    @property
    def value(self) -> Any:
        """What it returned; None when it failed, or when it was a Plan without an output."""
        if self._value is msgspec.UNSET:
            self._value = payload_value(self._record.result)
        return self._value

    @property
    def error(self) -> Error | None:
        """Why it failed."""
        return self._record.error

    @property
    def reason(self) -> str | None:
        """The reason that a Plan gave."""
        return self._record.reason

    def __repr__(self) -> str:
        return f"PastExecution({self.name!r}, branch={self.branch!r}, status={self.status!r})"


class TaskInput:
    """What a Task is given. Authors only make one in a unit test: `TaskInput({"url": "..."}, node="fetch")`."""

    __slots__ = ("_context", "_executions", "_message", "_value")
    _kind: Literal["task", "plan"] = "task"

    def __init__(
        self,
        value: Any = None,
        *,
        node: str = "node",
        executions: Sequence[Predecessor] = (),
        branch: str = "",
        iteration: int = 0,
        attempt: int = 1,
        joined: bool = False,
        lifetime_id: str = "00000000-0000-7000-8000-000000000000",
        tenant_id: str = "default",
    ) -> None:
        from tickwork.model.ids import exec_id
        from tickwork.sdk.encoding import encode_value

        execution = exec_id(lifetime_id, branch, node, iteration, attempt)
        message = NodeInput(
            tenant_id, lifetime_id, "", self._kind, node, execution, branch, iteration, attempt,
            tuple([e.exec_id for e in executions]), "", 0, encode_value(value, "the input"), tuple(executions), joined,
        )  # fmt: skip
        self._fill(message, None)

    def _fill(self, message: NodeInput, context: Context | None) -> None:
        self._message = message
        self._context = context
        self._value: Any = msgspec.UNSET
        self._executions: list[PastExecution] | None = None

    @classmethod
    def received(cls, message: NodeInput, context: Context) -> Self:
        """The input that a message carries; its payloads have been fetched from the blob store."""
        self = cls.__new__(cls)
        self._fill(message, context)
        return self

    @property
    def value(self) -> Any:
        """The input: the value before this node, the choice's own input, or the list of the branches' values."""
        if self._value is msgspec.UNSET:
            self._value = self._read()
        return self._value

    def _read(self) -> Any:
        message = self._message
        if message.input is not None:
            return payload_value(message.input)
        # What stands in `executions` is not sent twice.
        if message.joined:
            return [past.value for past in self.executions]
        return self.executions[0].value if len(message.executions) == 1 else None

    @property
    def payload(self) -> Payload | None:
        """The bytes of `value`, where it is one value and not a list of the branches'."""
        message = self._message
        if message.input is None and not message.joined and len(message.executions) == 1:
            return message.executions[0].result
        return message.input

    @property
    def executions(self) -> list[PastExecution]:
        """The executions before this one: none at an entry, one, or every branch's at a JOIN, in branch order."""
        if self._executions is None:
            self._executions = [PastExecution(e) for e in self._message.executions]
        return self._executions

    @property
    def exec_id(self) -> str:
        """The id of this attempt."""
        return self._message.exec_id

    @property
    def node(self) -> str:
        """The name of this node."""
        return self._message.node

    @property
    def branch(self) -> str:
        """The branch this runs in; the empty string outside any fan-out."""
        return self._message.branch

    @property
    def iteration(self) -> int:
        """How often this node has run before in this branch."""
        return self._message.iteration

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._message.attempt

    @property
    def joined(self) -> bool:
        """Whether a JOIN of a fan-out group brought this input; `value` is then a list."""
        return self._message.joined

    @property
    def lifetime_id(self) -> str:
        """The lifetime this belongs to."""
        return self._message.lifetime_id

    @property
    def tenant_id(self) -> str:
        """The tenant this belongs to."""
        return self._message.tenant_id

    @property
    def context(self) -> Context:
        """The context of this attempt."""
        if self._context is None:
            from tickwork.sdk.context import Context

            self._context = Context(self._message)
        return self._context

    def __repr__(self) -> str:
        return f"{type(self).__name__}(node={self.node!r}, branch={self.branch!r}, attempt={self.attempt})"


class PlanInput(TaskInput):
    """What a Plan is given: a TaskInput, and `result`."""

    __slots__ = ()
    _kind = "plan"

    @property
    def result(self) -> Any:
        """The value of the execution before this Plan; a list of them at a JOIN; None at an entry."""
        if self.joined:
            return [past.value for past in self.executions]
        return self.executions[0].value if len(self._message.executions) == 1 else None


class Next:
    """One choice of a Plan: the Task to run (its name, or the Task itself), and an input of its own if it has one."""

    __slots__ = ("input", "name")

    def __init__(self, task: Any, input: Any = msgspec.UNSET) -> None:
        if isinstance(task, str):
            self.name = task
        else:
            from tickwork.sdk.encoding import node_name

            name = node_name(task)
            if name is None:
                raise TypeError(f"Next takes the name of a Task or the Task itself, not {type(task).__qualname__}")
            self.name = name
        self.input = input

    def __repr__(self) -> str:
        return f"Next({self.name!r})" if self.input is msgspec.UNSET else f"Next({self.name!r}, input={self.input!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Next) and (self.name, self.input) == (other.name, other.input)

    __hash__ = None  # type: ignore[assignment]  # an input may be a list or a dict, so a choice has no hash


class PlanResult:
    """All that a Plan may say: what runs next, an output of its own, and why."""

    __slots__ = ("next", "output", "reason")

    def __init__(self, next: Any = None, *, output: Any = msgspec.UNSET, reason: str = "") -> None:
        self.next, self.output, self.reason = next, output, reason

    def __repr__(self) -> str:
        return f"PlanResult(next={self.next!r}, reason={self.reason!r})"
