"""The Plan between two Tasks that a drawing joins directly.

Edges alternate between Tasks and Plans, but people draw `Task --> Task` when there is nothing to decide. The Mermaid
reader puts this Plan in between: it chooses the Task that was drawn, and hands the result before it on.
"""

from __future__ import annotations

from typing import Any

RUN = f"{__name__}:pass_on"
"""How a node refers to it."""


def pass_on(plan_input: Any, ctx: Any) -> str:  # noqa: ARG001 - every Plan is given its input first
    """Choose the only Task there is: its name stands in the node's config as `next`."""
    chosen: str = ctx.config["next"]
    return chosen
