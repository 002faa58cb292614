"""What one verdict costs: ten policies judged over a record and over a dispatch, in microseconds.

    python -m benchmarks.verdicts

Nine budgets and one condition that reads the result, as a careful installation would have them. No store, no bus: the
Guard alone, as the fold calls it. `count` is what a record costs before it is judged.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from tickwork.formats.policies import read_policies
from tickwork.model.graph import Maximum, Node
from tickwork.model.policy import PolicySet, effective
from tickwork.model.records import Execution, Telemetry, json_payload, payload_value
from tickwork.orchestrator.guardrails.counters import use_of
from tickwork.orchestrator.guardrails.judging import Guard
from tickwork.orchestrator.guardrails.rules import Rules

TEN = """
version: 1
policies:
  - {name: tokens, when: sum(tokens_used) > 10 000 000, action: pause_lifetime}
  - {name: money, when: sum(cost_usd) > 5000, action: pause_lifetime}
  - {name: loop, when: iterations('work') > 100000, action: abort_lifetime}
  - {name: steps, when: count() > 1000000, action: abort_lifetime}
  - {name: slow, when: max(latency_ms) > 600000, action: warn}
  - {name: mean, when: avg(tokens_used) > 20000, action: warn, shadow: true}
  - {name: input, when: sum(tokens_in) > 9000000 || sum(tokens_out) > 9000000, action: pause_lifetime}
  - {name: model, when: sum(cost_usd) > 100, action: pause_lifetime, match: {model: "big-*"}}
  - {name: long, when: elapsed() > 86400, action: abort_lifetime}
  - {name: shell, scope: execution, when: "result.command.contains('rm -rf')", action: reject_execution}
"""

TIMES = 20_000


def microseconds(work: Callable[[], object]) -> float:
    """The median over five rounds of what one call takes."""
    rounds = []
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(TIMES // 5):
            work()
        rounds.append((time.perf_counter() - begun) / (TIMES // 5) * 1e6)
    return statistics.median(rounds)


def main() -> None:
    rules = Rules(PolicySet(policies=effective((read_policies(TEN),), "default", "loop").policies))
    nodes = {
        "work": Node(name="work", kind="task", maximum=Maximum(tokens=2_000)),
        "again": Node(name="again", kind="plan"),
    }
    guard = Guard(rules, "loop", {}, nodes, {}, 0, {})
    result = json_payload({"command": "ls", "text": "x" * 150})
    done = Execution(
        "e" * 24, "task", "work", "", 3, 1, (), "again->work", 0, 1_000, 2_000, "SUCCEEDED", "w python", result, None,
        Telemetry(100, 50, 150, 1_000_000, "small"),
    )  # fmt: skip
    facts = {"result": payload_value(result), "telemetry": {}, "header": {}, "lifetime": {}}

    def record() -> None:
        use = use_of(done, guard.measures("work"), ran=True)
        guard.count(done, use)
        guard.recorded(done, use, 5_000_000, lambda: facts)

    def dispatch() -> None:
        guard.dispatched("e" * 24, "work", 3, 5_000_000, lambda: {"lifetime": {}})
        guard.reserve("work")
        guard.reserve("work", -1)

    counting = microseconds(lambda: guard.count(done, use_of(done, guard.measures("work"), ran=True)))
    whole, sending = microseconds(record), microseconds(dispatch)
    print(f"count     {counting:6.1f} us")
    print(f"record    {whole:6.1f} us  (counted and judged by ten policies)")
    print(f"dispatch  {sending:6.1f} us  (judged by those that are budgets, reserved, given back)")


if __name__ == "__main__":
    main()
