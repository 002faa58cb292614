"""What a `waiting` event says about a visit, as far as it is decided. Pure.

The prompt is not part of it: it is rendered from payloads, by whoever has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tickwork.orchestrator.state import LifetimeState, Visit


def decided_wait(state: LifetimeState, visit: Visit) -> dict[str, Any]:
    """The data of the `waiting` event of this visit, without its prompt: whose it is, on what it waits, until when."""
    node = state.topology.nodes[visit.node]
    data: dict[str, Any] = {
        "exec_id": visit.exec_id,
        "node": visit.node,
        "branch": visit.branch,
        "kind": node.kind,
        "iteration": visit.iteration,
        "attempt": visit.attempt,
        "parents": list(visit.parents),
        "edge_taken": visit.edge_taken,
        "since": visit.created_at,
        "graph": state.topology.graph.name,
    }
    if visit.due is not None:
        data["deadline"] = visit.due
    if visit.trouble:
        data["on"] = visit.trouble
    elif node.human is not None:
        data["on"] = "human"
        if node.human.answer_schema is not None:
            data["answer_schema"] = node.human.answer_schema
        if node.human.who:
            data["who"] = list(node.human.who)
    elif node.signal is not None:
        data |= {"on": "signal", "name": node.signal.name}
    return data
