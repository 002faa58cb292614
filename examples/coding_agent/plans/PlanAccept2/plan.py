"""Shows passing code to the person, refines failing code, and gives up after a while."""

from __future__ import annotations

from agent import steps


def plan(plan_input):
    return steps.pass_or_refine(plan_input.result, coder="CodeLLM2", iteration=plan_input.iteration)
