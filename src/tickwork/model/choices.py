"""What a Plan may choose (spec section 2): one rule, asked by the executor before it records and by the router."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwork.model.graph import END, MAX_BRANCHES

if TYPE_CHECKING:
    from tickwork.model.graph import AgentGraph


def choice_problem(graph: AgentGraph, plan: str, chosen: tuple[str, ...]) -> str | None:
    """Why a Plan may not choose these targets together; None when it may."""
    edges = graph.targets[plan]
    if len(chosen) == 1 and chosen[0] in edges:
        return None
    if len(chosen) > MAX_BRANCHES:
        return f"plan `{plan}` opened {len(chosen)} branches; at most {MAX_BRANCHES} are allowed"
    allowed = ", ".join(edges) or "nothing"
    for name in chosen:
        if name not in edges:
            what = "takes the FINAL edge, which it does not have" if name == END else "is not one of its targets"
            return f"plan `{plan}` chose `{name}`, which {what}; it may choose: {allowed}"
    kinds = {edges[name].kind for name in chosen}
    if kinds <= {"PARALLEL"} or len(chosen) == 1:
        return None
    single = [name for name in chosen if edges[name].kind != "PARALLEL"]
    listed = ", ".join(f"`{name}` ({edges[name].kind})" for name in dict.fromkeys(single))
    return (
        f"plan `{plan}` chose {len(chosen)} targets at once, but {listed} can only be chosen alone; "
        "only targets of PARALLEL edges can be chosen together"
    )
