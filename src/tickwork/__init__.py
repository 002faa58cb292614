"""Tickwork runs AgentGraphs: Tasks do the work, Plans decide what is next, and every step is a record.

What authors need is re-exported here and imported when it is first asked for: `import tickwork` itself loads nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # the name that type checkers look for; importing `typing` for it costs 8 ms

if TYPE_CHECKING:
    from typing import Any

    from tickwork.errors import RetryableError as RetryableError
    from tickwork.errors import TerminalError as TerminalError
    from tickwork.model.graph import END as END
    from tickwork.model.graph import START as START
    from tickwork.model.graph import Limits as Limits
    from tickwork.model.graph import Maximum as Maximum
    from tickwork.model.graph import RetryPolicy as RetryPolicy
    from tickwork.model.graph import TimeLimits as TimeLimits
    from tickwork.runtime import run as run
    from tickwork.sdk.builder import Graph as Graph
    from tickwork.sdk.context import Context as Context
    from tickwork.sdk.nodes import Plan as Plan
    from tickwork.sdk.nodes import Task as Task
    from tickwork.sdk.nodes import child as child
    from tickwork.sdk.nodes import human as human
    from tickwork.sdk.nodes import plan as plan
    from tickwork.sdk.nodes import sleep as sleep
    from tickwork.sdk.nodes import task as task
    from tickwork.sdk.nodes import wait_for_signal as wait_for_signal
    from tickwork.sdk.values import Next as Next
    from tickwork.sdk.values import PastExecution as PastExecution
    from tickwork.sdk.values import PlanInput as PlanInput
    from tickwork.sdk.values import PlanResult as PlanResult
    from tickwork.sdk.values import TaskInput as TaskInput

__version__ = "0.1.0"

_HOMES = {
    "tickwork.errors": ("RetryableError", "TerminalError"),
    "tickwork.model.graph": ("END", "START", "Limits", "Maximum", "RetryPolicy", "TimeLimits"),
    "tickwork.runtime": ("run",),
    "tickwork.sdk.builder": ("Graph",),
    "tickwork.sdk.context": ("Context",),
    "tickwork.sdk.nodes": ("Plan", "Task", "child", "human", "plan", "sleep", "task", "wait_for_signal"),
    "tickwork.sdk.values": ("Next", "PastExecution", "PlanInput", "PlanResult", "TaskInput"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # noqa: PLE0604 - a star import of the names above is as lazy as any other use of them
    "__version__",
    *_HOME_OF,
]


def __getattr__(name: str) -> Any:
    """Imports the module that a public name lives in, once."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'tickwork' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, for completion."""
    return sorted({*globals(), *_HOME_OF})
