"""Takes the code out of the reply and sends it to its check."""

from __future__ import annotations

from agent import steps


def plan(plan_input):
    return steps.take_code(plan_input.result, check="CheckCodeLLM1")
