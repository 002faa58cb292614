"""Has the model write the function."""

from __future__ import annotations

from agent import steps


def task(task_input):
    return steps.write_code(task_input.value, task_input.context)
