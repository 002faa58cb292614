"""What policies cost: one verdict in microseconds, and W2 with ten of them beside W2 without.

    python -m benchmarks.verdicts                  the Guard alone, as the fold calls it: no store, no bus
    python -m benchmarks.verdicts --w2 --reps 5    W2: with no policies, ten, ten and a tenant's budget

The ten are nine limits of a lifetime and one condition that reads a result, as a careful installation would have them.
`count` is what a record costs before it is judged. None is ever breached.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Sizes, repetition
from tickwork.formats.policies import read_policies
from tickwork.model.graph import Maximum, Node
from tickwork.model.policy import PolicySet, effective
from tickwork.model.records import Execution, Telemetry, json_payload, payload_value
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
  - {name: shell, scope: execution, when: "result.text.contains('rm -rf')", action: reject_execution, match: {name: work}}
"""  # noqa: E501 - one policy a line

TENANT = TEN + "  - {name: daily, scope: tenant, window: 24h, when: sum(cost_usd) > 50, action: pause_lifetime}\n"

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


def whole(reps: int, scale: float) -> None:
    """W2 by turns, medians, and what is lost."""
    sets = {"none": "", "ten": TEN, "ten and a tenant's": TENANT}
    found: dict[str, list[float]] = {name: [] for name in sets}
    with tempfile.TemporaryDirectory(prefix="tickwork-policies-") as folder:
        for number, text in enumerate(sets.values()):
            (Path(folder) / f"{number}.yaml").write_text(text)
        for _ in range(reps):
            for number, (name, text) in enumerate(sets.items()):
                os.environ.pop("TICKWORK_POLICIES", None)
                if text:
                    os.environ["TICKWORK_POLICIES"] = str(Path(folder) / f"{number}.yaml")
                found[name].append(repetition(Sizes(scale=scale).job("W2"))["steps/s"])
    plain = statistics.median(found["none"])
    for name, values in found.items():
        lost = 1 - statistics.median(values) / plain
        low, high = min(values), max(values)
        print(f"{name:20} {statistics.median(values):10,.0f} steps/s  ({low:,.0f} to {high:,.0f})  lost {lost:6.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--w2", action="store_true")
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    given = parser.parse_args()
    if given.w2:
        whole(given.reps, given.scale)
    else:
        alone()


def alone() -> None:
    """The Guard alone."""
    rules = Rules(PolicySet(policies=effective((read_policies(TEN),), "default", "loop").policies))
    nodes = {
        "work": Node(name="work", kind="task", maximum=Maximum(tokens=2_000)),
        "again": Node(name="again", kind="plan"),
    }
    guard = Guard(rules, "loop", {}, nodes, {}, 0, {})
    result = json_payload({"text": "x" * 140})
    done = Execution(
        "e" * 24, "task", "work", "", 3, 1, (), "again->work", 0, 1_000, 2_000, "SUCCEEDED", "w python", result, None,
        Telemetry(100, 50, 150, 1_000_000, "small"),
    )  # fmt: skip
    facts = {"result": payload_value(result), "telemetry": {}, "header": {}, "lifetime": {}}

    def record() -> None:
        use = guard.count(done, 5_000_000, ran=True)
        if use is not None:
            guard.recorded(done, use, 5_000_000, lambda: facts)

    def dispatch() -> None:
        assert guard.let_pass("work", 3, 5_000_000)
        guard.give_back("work")

    counting = microseconds(lambda: guard.count(done, 5_000_000, ran=True))
    whole, sending = microseconds(record), microseconds(dispatch)
    print(f"count     {counting:6.1f} us")
    print(f"record    {whole:6.1f} us  (counted and judged by ten policies)")
    print(f"dispatch  {sending:6.1f} us  (judged by those that are budgets, reserved, given back)")


if __name__ == "__main__":
    main()
