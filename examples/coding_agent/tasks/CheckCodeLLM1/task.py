"""Runs the code with its test."""

from __future__ import annotations

from agent import steps


def task(task_input):
    return steps.check_code(task_input.value)
