"""How to call what an author wrote: found out once from its signature, so that a call costs one closure.

The first parameter is the input: the whole TaskInput or PlanInput where it is annotated so or called `task_input` or
`plan_input`, a validated Pydantic model (or dataclass, or msgspec Struct) where it is annotated with one, else the
plain value. A parameter called `ctx` or annotated Context is the context.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

import msgspec

from tickwork.errors import TerminalError
from tickwork.model.graph import NodeKind
from tickwork.model.records import JSON
from tickwork.sdk.context import Context
from tickwork.sdk.values import PlanInput, TaskInput


class InputInvalid(TerminalError):
    """The input does not fit the model that the implementation declares."""


class OutputInvalid(Exception):
    """The result does not fit the model that the implementation declares."""


class SignatureFault(Exception):
    """An implementation that cannot be called as a Task or a Plan. The message says what to write instead."""


class HookFault(SignatureFault):
    """A reconcile hook that cannot be called."""


class Implementation:
    """What the executor calls for a node.

    `call(input, ctx)` returns the value, or an awaitable of it when `is_async`. `unloadable` says why another process
    cannot load it by its reference ("" when it can).

    `reconcile(input, ctx)` is the hook of an `at_most_once` Task, None where it has none; an awaitable comes back when
    `reconcile_is_async`. What it returns is a result, so `check` holds for it too. Raises SignatureFault, and
    HookFault for the hook.
    """

    __slots__ = (
        "call",
        "check",
        "function",
        "is_async",
        "kind",
        "name",
        "reconcile",
        "reconcile_is_async",
        "unloadable",
    )

    def __init__(
        self,
        name: str,
        kind: NodeKind,
        function: Callable[..., Any],
        unloadable: str = "",
        reconcile: Any = None,
    ) -> None:
        self.name, self.kind, self.function, self.unloadable = name, kind, function, unloadable
        self.is_async = _is_async(function)
        self.call: Callable[[TaskInput, Context], Any] = _caller(function)
        self.check: Callable[[Any], Any] | None = _output_check(function) if kind == "task" else None
        self.reconcile: Callable[[TaskInput, Context], Any] | None = None
        self.reconcile_is_async = False
        if reconcile is not None:
            self.reconcile, self.reconcile_is_async = _hook_caller(reconcile), _is_async(reconcile)

    def input_for(self, message: Any, ctx: Context) -> TaskInput:
        """The TaskInput or PlanInput of a message."""
        return (TaskInput if self.kind == "task" else PlanInput).received(message, ctx)

    def __repr__(self) -> str:
        return f"Implementation({self.name!r}, {'async' if self.is_async else 'sync'})"


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - an object whose __call__ is async is meant


def _caller(function: Callable[..., Any]) -> Callable[[TaskInput, Context], Any]:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise SignatureFault("it is a generator (it has `yield`); return the value, or a list of values")
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise SignatureFault("its signature cannot be read; wrap it in a function of your own") from None
    given: list[tuple[inspect.Parameter, Callable[[TaskInput, Context], Any]]] = []
    has_input = has_context = False
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        hint = _hint(function, parameter)
        if not has_context and _is_context(parameter, hint):
            has_context = True
            given.append((parameter, _context))
        elif not has_input and (parameter.kind != parameter.KEYWORD_ONLY or parameter.default is parameter.empty):
            has_input = True
            given.append((parameter, _reader(parameter, hint)))
        elif parameter.default is parameter.empty:
            raise SignatureFault(
                f"it needs a parameter `{parameter.name}` that nothing is given for; it gets one input and,"
                " if it asks for it, `ctx` (put several values into one object)"
            )
    return _bound(function, given)


def _hook_caller(hook: Any) -> Callable[[TaskInput, Context], Any]:
    if not callable(hook) or isinstance(hook, type):
        raise HookFault(f"it is {_an(hook)}; write a function `def reconcile(task_input)`, sync or async")
    try:
        return _caller(hook)
    except SignatureFault as fault:
        raise HookFault(str(fault)) from None


def _an(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"an object of type {type(value).__name__}"


def _bound(
    function: Callable[..., Any], given: list[tuple[inspect.Parameter, Callable[[TaskInput, Context], Any]]]
) -> Callable[[TaskInput, Context], Any]:
    if all(p.kind is not p.KEYWORD_ONLY for p, _ in given):
        match [read for _, read in given]:
            case []:
                return lambda _given, _ctx: function()
            case [first]:
                return lambda given, ctx: function(first(given, ctx))
            case [first, second]:
                return lambda given, ctx: function(first(given, ctx), second(given, ctx))
    positional = [read for p, read in given if p.kind is not p.KEYWORD_ONLY]
    named = {p.name: read for p, read in given if p.kind is p.KEYWORD_ONLY}
    return lambda given, ctx: function(
        *[read(given, ctx) for read in positional], **{name: read(given, ctx) for name, read in named.items()}
    )


def _hint(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    return _resolved(function, parameter.annotation) if parameter.annotation is not parameter.empty else None


def _resolved(function: Callable[..., Any], annotation: Any) -> Any:
    """An annotation as a type; the text itself when a name in it is not known at run time."""
    if not isinstance(annotation, str):
        return annotation
    plain = inspect.unwrap(getattr(function, "__func__", function))
    if not inspect.isfunction(plain):
        plain = type(plain).__call__
    scope = dict(getattr(plain, "__globals__", {}))
    if inspect.isfunction(plain):
        scope.update(inspect.getclosurevars(plain).nonlocals)
    carrier = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(carrier, globalns=scope)["it"]
    except Exception:  # noqa: BLE001 - names imported for the type checker only are not there; anything may be raised
        return annotation


def _is_context(parameter: inspect.Parameter, hint: Any) -> bool:
    return parameter.name == "ctx" or hint is Context or _called(hint, "Context")


def _called(hint: Any, name: str) -> bool:
    return isinstance(hint, str) and hint.rpartition(".")[2] == name


def _context(_given: TaskInput, ctx: Context) -> Context:
    return ctx


def _whole(given: TaskInput, _ctx: Context) -> TaskInput:
    return given


def _value(given: TaskInput, _ctx: Context) -> Any:
    return given.value


def _reader(parameter: inspect.Parameter, hint: Any) -> Callable[[TaskInput, Context], Any]:
    whole = isinstance(hint, type) and issubclass(hint, TaskInput)
    if whole or _called(hint, "TaskInput") or _called(hint, "PlanInput"):
        return _whole
    if parameter.name in ("task_input", "plan_input"):
        return _whole
    if not _has_model(hint):
        return _value
    try:
        convert = _converter(hint)
    except Exception as error:  # noqa: BLE001 - a model that is not finished may raise anything
        raise SignatureFault(f"its input type {_name(hint)} cannot be read from JSON: {error}") from None

    def read(given: TaskInput, _ctx: Context) -> Any:
        payload = given.payload
        raw = payload.inline if payload is not None and payload.content_type == JSON else None
        try:
            return convert(raw) if raw is not None else convert(msgspec.json.encode(given.value))
        except (ValueError, TypeError) as error:  # Pydantic's and msgspec's ValidationError are ValueErrors
            faults, details = _faults(error)
            message = f"the input of `{given.node}` does not fit {_name(hint)}: {faults}"
            raise InputInvalid(message, details=details) from None

    return read


def _has_model(hint: Any) -> bool:
    """Whether an annotation is, or holds, a type that values have to be converted to."""
    if isinstance(hint, type) and not typing.get_args(hint):
        return hasattr(hint, "__pydantic_validator__") or dataclasses.is_dataclass(hint) or _is_struct(hint)
    return any(_has_model(part) for part in typing.get_args(hint))


def _is_struct(hint: type) -> bool:
    return issubclass(hint, msgspec.Struct)


def _holds_pydantic(hint: Any) -> bool:
    return hasattr(hint, "__pydantic_validator__") or any(_holds_pydantic(part) for part in typing.get_args(hint))


def _converter(hint: Any) -> Callable[[bytes], Any]:
    """From JSON to the type: by Pydantic where it has a Pydantic model in it, else by msgspec."""
    if _holds_pydantic(hint):
        from pydantic import TypeAdapter

        return TypeAdapter(hint).validate_json
    return msgspec.json.Decoder(hint).decode


def _output_check(function: Callable[..., Any]) -> Callable[[Any], Any] | None:
    """For `-> Model`: makes sure that what is returned fits it. Only Pydantic models check themselves."""
    plain = inspect.unwrap(getattr(function, "__func__", function))
    hint = _resolved(function, getattr(plain, "__annotations__", {}).get("return"))
    if not (isinstance(hint, type) and hasattr(hint, "__pydantic_validator__")):
        return None
    model: Any = hint

    def check(value: Any) -> Any:
        if isinstance(value, model):
            return value
        try:
            return model.model_validate(value)
        except ValueError as error:
            raise OutputInvalid(f"the result does not fit {_name(hint)}: {_faults(error)[0]}") from None

    return check


def _name(hint: Any) -> str:
    return getattr(hint, "__name__", None) or str(hint)


def _faults(error: Exception) -> tuple[str, Any]:
    """The complaints of a validation in one line, and as data."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error), None
    found = errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(str(part) for part in e['loc']) or 'value'}: {e['msg']}" for e in found[:20]]
    more = f"; and {len(found) - 20} more" if len(found) > 20 else ""
    return "; ".join(lines) + more, [{"at": list(e["loc"]), "message": e["msg"]} for e in found[:20]]
