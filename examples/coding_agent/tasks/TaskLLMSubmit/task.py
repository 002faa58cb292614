"""Has the model restate the request as a signature and a docstring."""

from __future__ import annotations

from agent import steps


def task(task_input):
    return steps.restate(task_input.value, task_input.context)
