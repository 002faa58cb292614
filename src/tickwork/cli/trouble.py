"""Executions in trouble, in words: UNKNOWN (nobody knows whether an `at_most_once` call had its effect) and poison
(its workers were lost with it again and again), with the commands that settle them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tickwork.model.lifetime import Question

WORD = {"unknown": "UNKNOWN", "poison": "poison"}
"""What an execution is called by what its lifetime waits on."""


def is_trouble(on: object) -> bool:
    """Whether a wait is about an execution in trouble; nobody can answer that, somebody has to settle it."""
    return on in WORD


def heading(node: object, on: object, since: str = "") -> str:
    """`pay is UNKNOWN`, `draft is parked as poison`."""
    state = "is UNKNOWN" if on == "unknown" else "is parked as poison"
    return f"{node} {state}" + (f" {since}" if since else "")


def commands(lifetime_id: str, exec_id: str, where: str) -> list[str]:
    """The three things that can be said about it, as commands; `where`: the options that find the home again."""
    settle = f"tickwork lifetimes reconcile {lifetime_id} --exec {exec_id}"
    return [
        f"it happened:   {settle} --result JSON{where}",
        f"it failed:     {settle} --failed REASON{where}",
        f"run it again:  {settle} --retry{where}",
    ]


def commands_for(question: Question, where: str) -> list[str]:
    """The same, for an open question."""
    return commands(question.lifetime_id, question.exec_id, where)


def listed(questions: list[Question]) -> str:
    """Open questions of any kind as lines, to tell them apart."""
    several = len({question.lifetime_id for question in questions}) > 1
    return "\n    ".join(_line(question, several) for question in questions)


def _line(question: Question, several: bool) -> str:
    where = f" in {question.branch}" if question.branch else ""
    of = f"  of lifetime {question.lifetime_id}" if several else ""
    return f"{question.exec_id}  {question.node}{where}  ({WORD.get(question.on, 'waits for an answer')}){of}"
