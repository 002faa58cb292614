"""What judging a condition costs: `python -m benchmarks.conditions` prints microseconds, the best of five rounds.

The target is that of the control plane: ten policies in under 25 microseconds for each record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from tickwork.model.expressions import Amount, Expression, compile_expression
from tickwork.model.policy import Engine

ROUNDS, TIMES = 5, 5_000
BUDGETS = (
    "sum(tokens_used) > 10 000",
    "sum(cost_usd) > 0.50",
    "sum(tokens_in) > 100 000",
    "sum(tokens_out) >= 100 000",
    "count() > 200",
    "iterations('refine') > 8",
    "elapsed() > 3600",
    "avg(latency_ms) > 2500",
    "max(cost_usd) > 0.25",
    "sum(custom.pages) > 40 && count() > 3",
)
RECORD: dict[str, Any] = {"result": {"score": 0.7, "text": "x" * 200}}


def microseconds(work: Callable[[], object]) -> float:
    """The best average of one call."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(TIMES):
            work()
        best = min(best, time.perf_counter() - began)
    return best / TIMES * 1e6


def amounts_for(expression: Expression) -> list[Amount]:
    """Amounts of a lifetime well within its budgets."""
    return [(30, 10) if aggregate.name == "avg" else 3 for aggregate in expression.aggregates]


def judging(conditions: Sequence[tuple[Engine, str]]) -> Callable[[], object]:
    """Judges all conditions once."""
    ready = [(each := compile_expression(engine, text, "lifetime"), amounts_for(each)) for engine, text in conditions]

    def judge() -> bool:
        found = False
        for expression, amounts in ready:
            found |= expression.holds(amounts, lambda: RECORD)
        return found

    return judge


def main() -> None:
    rows: list[tuple[str, list[tuple[Engine, str]]]] = [
        ("ten budget policies, CEL", [("cel", text) for text in BUDGETS]),
        ("one CEL condition on a result", [("cel", "result.score < 0.5")]),
        ("the same beside a budget", [("cel", "result.score < 0.5 && sum(cost_usd) > 0.5")]),
        ("one Rego condition on a result", [("rego", "input.result.score < 0.5")]),
        ("the same beside a budget", [("rego", "input.result.score < 0.5; input.sum.cost_usd > 0.5")]),
        ("one budget policy, Rego", [("rego", "input.sum.tokens_used > 10000")]),
    ]
    for name, conditions in rows:
        print(f"{name:<32}{microseconds(judging(conditions)):8.2f} µs")
    for engine, text in (("cel", BUDGETS[0]), ("cel", "result.score < 0.5"), ("rego", "input.result.score < 0.5")):
        cost = microseconds(lambda engine=engine, text=text: compile_expression(engine, text, "lifetime"))
        print(f"compile {engine}: {text:<18}{cost:8.1f} µs")


if __name__ == "__main__":
    main()
