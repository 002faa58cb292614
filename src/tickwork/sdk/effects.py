"""Whether the code of a Task and its node agree about what running it twice would do.

The effect class belongs to the graph: the engine reads it there, long before any code is loaded. An author says it
beside the code too, with a hook that tells what became of a lost call. Where the two differ, the weaker promise would
win silently and a payment be made twice, so that is a problem of the graph.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from tickwork.model.graph import Node
from tickwork.model.problems import Location, Problem
from tickwork.sdk.implementation import HookFault, Implementation, SignatureFault
from tickwork.sdk.nodes import GraphNode


def implemented(
    node: Node, function: Callable[..., Any], hook: Any, at: Location, unloadable: str = ""
) -> tuple[Implementation | None, list[Problem]]:
    """The implementation of a node, and what is wrong with its signatures and its hook. `at`: where the node stands."""
    problems: list[Problem] = []
    if hook is not None and node.effect != "at_most_once":
        problems.append(_needless(node, hook, at))
        hook = None
    try:
        return Implementation(node.name, node.kind, function, unloadable, hook), problems
    except HookFault as fault:
        message = f"the reconcile hook of `{node.name}` cannot be called: {fault}"
        problems.append(Problem(_place(hook, at), "bad_signature", message, "", node.name))
    except SignatureFault as fault:
        message = f"`{node.run or node.name}` cannot be called as a {node.kind.title()}: {fault}"
        problems.append(Problem(at, "bad_signature", message, "", node.name))
    return None, problems


def disagreement(node: Node, found: Any, at: Location) -> Problem | None:
    """The code says that it may run once only, and the graph that it may run again: nobody meant that."""
    if not isinstance(found, GraphNode) or found.effect != "at_most_once" or node.effect == "at_most_once":
        return None
    message = f"`{node.run}` is declared at_most_once, but the graph says that `{node.name}` is {node.effect}"
    hint = "write `effect: at_most_once` for the node, or take it out of the code"
    return Problem(at, "effect_differs", message, hint, node.name)


def _needless(node: Node, hook: Any, at: Location) -> Problem:
    message = f"`{node.name}` has a reconcile hook, but it is {node.effect}: a lost call of it is simply made again"
    hint = 'declare effect="at_most_once" (in a graph file: `effect: at_most_once`), or take the hook out'
    return Problem(_place(hook, at), "needless_hook", message, hint, node.name)


def _place(hook: Any, at: Location) -> Location:
    """Where a hook is defined; `at` when that cannot be told."""
    code = getattr(inspect.unwrap(getattr(hook, "__func__", hook)), "__code__", None)
    return Location(code.co_filename, code.co_firstlineno) if code is not None else at
