"""The real executable as a process, and a graph that asks a person, for the tests of the command line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

APPROVAL = """
tickwork: 1
name: approval
version: 1.0.0
tasks:
  draft:
    run: steps.py:draft
  approve:
    human:
      prompt: "May `{text}` be published?"
      answer_schema:
        type: object
        properties:
          verdict: {enum: [accept, reject]}
          note: {type: string}
        required: [verdict]
        additionalProperties: false
plans:
  ask: steps.py:ask
  decide: steps.py:decide
edges:
  - start -> draft
  - draft -> ask
  - ask -> approve
  - approve -> decide
  - {from: decide, to: draft, label: reject}
  - {from: decide, to: end, label: accept}
"""

STEPS = """
from tickwork import END, TerminalError

def draft(value, ctx):
    ctx.telemetry.record(tokens_used=10, cost_usd="0.0001")
    if ctx.lifetime.input == "fail":
        raise TerminalError("there is nothing to write about")
    return {"text": f"draft {ctx.iteration + 1} about {ctx.lifetime.input}"}

def ask(plan_input):
    return "approve"

def decide(plan_input):
    return END if plan_input.result["verdict"] == "accept" else "draft"
"""


@dataclass
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Ran]
COMMAND = [sys.executable, "-m", "tickwork.cli.main"]


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TICKWORK_")}
    return {**kept, "TICKWORK_HOME": str(home), "COLUMNS": "120"}
