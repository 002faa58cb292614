"""Looks up what the documentation says."""

from __future__ import annotations

from agent import steps


def task(task_input):
    return steps.look_up(task_input.value)
