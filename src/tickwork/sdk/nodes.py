"""Tasks and Plans as authors write them: decorated functions, classes with `run`, and Tasks that wait.

Each one knows the settings of its node (retry, limits, isolation...); the builder turns it into a `Node` of the graph.
A decorated function stays callable, so that a unit test calls it like any other function.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, ParamSpec, TypeAlias, TypeVar, overload

import msgspec

from tickwork.model.graph import (
    Child,
    Effect,
    Human,
    Isolation,
    Maximum,
    Node,
    NodeKind,
    RetryPolicy,
    Signal,
    TimeLimits,
    Timer,
)
from tickwork.model.money import dollars

P = ParamSpec("P")
R = TypeVar("R")
H = TypeVar("H", bound=Callable[..., Any])


MaximumOption: TypeAlias = Maximum | Mapping[str, Any]
"""A maximum as authors write it."""


class GraphNode:
    """What Task and Plan have in common: the settings of a node, as class attributes that a subclass sets."""

    kind: ClassVar[NodeKind]
    name: str = ""
    """The node's name in the graph; empty: the name of the class or function."""
    title: str = ""
    description: str = ""
    retry: RetryPolicy = RetryPolicy()
    limits: TimeLimits = TimeLimits()
    effect: Effect = "idempotent"
    """Only for a Task: what running it twice would do. See `Task.reconcile` for `at_most_once`."""
    maximum: MaximumOption = Maximum()
    """The most that one attempt uses, tokens and US dollars; it is reserved against budgets before the attempt runs.
    `{"tokens": 2000, "cost_usd": "0.05"}` or a Maximum."""
    isolation: Isolation = "inline"
    memory_mb: int | None = None
    config: Mapping[str, Any] = {}
    run: Callable[..., Any]
    """The implementation, sync or async: `def run(self, value, ctx)`. A subclass defines it."""

    def implementation(self) -> Callable[..., Any] | None:
        """What is called for this node; None for a Task that waits."""
        return getattr(self, "run", None)

    def reconcile_hook(self) -> Any:
        """The reconcile hook; None where there is none."""
        return None

    def node(self, run: str = "") -> Node:
        """The node of the graph; `run` says where the implementation is found."""
        config: Any = self.config  # validation says so when it is no mapping
        return Node(
            name=self.name or type(self).__name__,
            kind=self.kind,
            title=self.title,
            description=self.description,
            run=run,
            retry=self.retry,
            limits=self.limits,
            effect=self.effect,
            maximum=_maximum(self.maximum),
            isolation=self.isolation,
            memory_mb=self.memory_mb,
            config=dict(config) if isinstance(config, Mapping) else config,
        )

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name or type(self).__name__}>"


def _maximum(given: Any) -> Any:
    """The Maximum of a node. What cannot be one is left as it is: validation says so, at its line."""
    if isinstance(given, Mapping):
        if not set(given) <= set(Maximum.__struct_fields__):
            return given
        given = Maximum(**given)
    if isinstance(given, Maximum) and given.cost_usd != "":
        try:
            return msgspec.structs.replace(given, cost_usd=dollars(given.cost_usd))
        except ValueError:
            number = isinstance(given.cost_usd, int | float) and not isinstance(given.cost_usd, bool)
            return msgspec.structs.replace(given, cost_usd=str(given.cost_usd)) if number else given
    return given


class Task(GraphNode):
    """A node that works. Subclass it and define `run`, or decorate a function with `@task`.

    With `effect = "at_most_once"` user code is called once and never a second time by itself. When that call was lost
    (the process died, the answer never came), nobody knows whether it had its effect. A method `reconcile` can say.
    """

    kind = "task"
    reconcile: Callable[..., Any]
    """The hook of an `at_most_once` Task, sync or async: `def reconcile(self, task_input)`, `ctx` where it asks for it.

    Called with the input of the lost call, its first parameter read as that of `run`. It looks the call up where it
    would have left a trace (by `ctx.idempotency_key`, which is the same), and says what happened:

    - it returns a value: the call happened, and this is its result;
    - it raises RetryableError: the call did not happen, so run the Task again;
    - it raises TerminalError: the call failed for good;
    - it raises anything else, or there is no hook: the lifetime waits until a person says what happened.

    It only asks, and may itself be called more than once. It runs in the worker, also with `isolation="subprocess"`.
    """

    def reconcile_hook(self) -> Any:
        """The method `reconcile`; None where the class has none."""
        return getattr(self, "reconcile", None)


class Plan(GraphNode):
    """A node that decides. Subclass it and define `run`, or decorate a function with `@plan`."""

    kind = "plan"


class FunctionTask(Task, Generic[P, R]):
    """A Task made from a function by `@task`; calling it calls the function."""

    def __init__(self, function: Callable[P, R]) -> None:
        self.function = function
        self._hook: Callable[..., Any] | None = None
        functools.update_wrapper(self, function)

    def reconcile(self, hook: H) -> H:
        """Decorates the hook of an `at_most_once` Task, `@charge.reconcile`; `Task.reconcile` says what a hook does."""
        self._hook = hook
        return hook

    def reconcile_hook(self) -> Any:
        """The function that was given as the hook; None where none was."""
        return self._hook

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def implementation(self) -> Callable[..., Any]:
        """The function."""
        return self.function


class FunctionPlan(Plan, Generic[P, R]):
    """A Plan made from a function by `@plan`; calling it calls the function."""

    def __init__(self, function: Callable[P, R]) -> None:
        self.function = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def implementation(self) -> Callable[..., Any]:
        """The function."""
        return self.function


@overload
def task(function: Callable[P, R], /) -> FunctionTask[P, R]: ...
@overload
def task(
    *,
    name: str = "",
    title: str = "",
    description: str = "",
    retry: RetryPolicy | None = None,
    limits: TimeLimits | None = None,
    maximum: MaximumOption | None = None,
    effect: Effect = "idempotent",
    reconcile: Callable[..., Any] | None = None,
    isolation: Isolation = "inline",
    memory_mb: int | None = None,
    config: Mapping[str, Any] | None = None,
) -> Callable[[Callable[P, R]], FunctionTask[P, R]]: ...
def task(function: Callable[..., Any] | None = None, /, **settings: Any) -> Any:
    """Makes a Task of a function: `@task`, or `@task(name="fetch", retry=RetryPolicy(max_attempts=5))`.

    `effect` says what running it twice would do: "pure" and "idempotent" run again when an attempt was lost,
    "at_most_once" does not, and its hook `reconcile` can say what happened (see `Task.reconcile`). `memory_mb` limits
    a subprocess, so it goes with `isolation="subprocess"`.
    """
    if function is not None:
        return _configured(FunctionTask(function), function, settings, _OF_TASKS)
    return lambda made: _configured(FunctionTask(made), made, settings, _OF_TASKS)


@overload
def plan(function: Callable[P, R], /) -> FunctionPlan[P, R]: ...
@overload
def plan(
    *,
    name: str = "",
    title: str = "",
    description: str = "",
    retry: RetryPolicy | None = None,
    limits: TimeLimits | None = None,
    maximum: MaximumOption | None = None,
    isolation: Isolation = "inline",
    memory_mb: int | None = None,
    config: Mapping[str, Any] | None = None,
) -> Callable[[Callable[P, R]], FunctionPlan[P, R]]: ...
def plan(function: Callable[..., Any] | None = None, /, **settings: Any) -> Any:
    """Makes a Plan of a function: `@plan`, or `@plan(name="decide")`."""
    if function is not None:
        return _configured(FunctionPlan(function), function, settings, _OF_PLANS)
    return lambda made: _configured(FunctionPlan(made), made, settings, _OF_PLANS)


_OF_PLANS = ("name", "title", "description", "retry", "limits", "maximum", "isolation", "memory_mb", "config")
_OF_TASKS = (*_OF_PLANS, "effect", "reconcile")


def _configured(made: Any, function: Any, settings: Mapping[str, Any], known: Sequence[str]) -> Any:
    if isinstance(function, GraphNode):
        raise TypeError(f"{function!r} is a {function.kind} already; decorate the plain function")
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"@{made.kind} decorates a function; a class derives from {type(made).__mro__[1].__name__}")
    for key, value in settings.items():
        if key not in known:
            raise TypeError(f"@{made.kind} has no setting `{key}`; it has {', '.join(known)}")
        if value is None:
            continue
        if key == "reconcile":
            made.reconcile(value)
        else:
            setattr(made, key, value)
    made.name = made.name or getattr(function, "__name__", type(function).__name__)
    return made


class WaitingTask(Task):
    """A Task without code: it asks a person, waits for a signal, lets time pass or runs another graph."""

    def __init__(self, name: str, title: str = "", description: str = "", **work: Any) -> None:
        self.name, self.title, self.description = name, title, description
        self._work = work

    def implementation(self) -> None:
        """Nothing is called."""
        return

    def node(self, run: str = "") -> Node:
        """The node of the graph."""
        return msgspec.structs.replace(super().node(), **self._work)


def human(
    name: str,
    *,
    prompt: str,
    answer_schema: dict[str, Any] | None = None,
    deadline: float | None = None,
    default: Any = msgspec.UNSET,
    who: Sequence[str] = (),
    title: str = "",
    description: str = "",
) -> Task:
    """A Task that a person answers. The wait is durable: no process has to stay up.

    `answer_schema` is a JSON Schema for the answer; after `deadline` seconds `default` is taken, or the Task fails
    when there is none; `who` lists who may answer. `{field}` in the prompt is replaced by that field of the input.
    """
    work = Human(prompt=prompt, answer_schema=answer_schema, deadline=deadline, default=default, who=tuple(who))
    return WaitingTask(name, title, description, human=work)


def wait_for_signal(
    signal: str,
    *,
    name: str = "",
    deadline: float | None = None,
    default: Any = msgspec.UNSET,
    title: str = "",
    description: str = "",
) -> Task:
    """A Task that waits for a signal; its value is the signal's payload. `name` is the node's, else the signal's."""
    work = Signal(name=signal, deadline=deadline, default=default)
    return WaitingTask(name or signal, title, description, signal=work)


def sleep(name: str, *, seconds: float, title: str = "", description: str = "") -> Task:
    """A Task that lets time pass, durably, and hands its input on."""
    return WaitingTask(name, title, description, timer=Timer(seconds=seconds))


def child(name: str, *, graph: str, version: str = "", title: str = "", description: str = "") -> Task:
    """A Task that runs another registered graph to its end; its value is that lifetime's result."""
    return WaitingTask(name, title, description, child=Child(name=graph, version=version))
