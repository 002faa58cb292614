"""Answers that were written down before: the file that `--answers` names.

    approve: yes            # the same answer, however often `approve` asks
    review:                 # the n-th time that `review` asks gets the n-th answer
      - {verdict: reject, comment: name the function add}
      - {verdict: accept}

Which time it is is counted in the lifetime's log, so a run that was killed and resumed with the same file goes on
where it was.
"""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING, Any

from tickwork.cli.failure import Refusal
from tickwork.model.records import Event

if TYPE_CHECKING:
    from pathlib import Path

    from tickwork.model.lifetime import Question
    from tickwork.model.records import LogEntry

MAX_BYTES = 4 * 1024 * 1024


class NoAnswer(Exception):
    """The file has no answer to this question; the message says why."""


class Answers:
    """The answers of one file, and how often each node of one lifetime has asked."""

    def __init__(self, by_node: dict[str, Any], source: str = "") -> None:
        self.source = source
        self._by_node = by_node
        self._asked: dict[str, list[str]] = {}

    def see(self, entry: LogEntry) -> None:
        """Counts a question that the log shows."""
        event = entry.entry
        if isinstance(event, Event) and event.type == "waiting" and event.data.get("on") == "human":
            asked = self._asked.setdefault(event.data["node"], [])
            if event.data["exec_id"] not in asked:
                asked.append(event.data["exec_id"])

    def answer(self, question: Question) -> Any:
        """The answer to `question`; raises NoAnswer."""
        if question.node not in self._by_node:
            raise NoAnswer(f"{self.source} has no answer for `{question.node}`")
        written = self._by_node[question.node]
        if not isinstance(written, list):
            return written
        asked = self._asked.setdefault(question.node, [])
        if question.exec_id not in asked:
            asked.append(question.exec_id)
        turn = asked.index(question.exec_id)
        if turn >= len(written):
            times = f"{len(written)} answer{'' if len(written) == 1 else 's'}"
            raise NoAnswer(f"{self.source} has {times} for `{question.node}`, and it asks for the {turn + 1}. time")
        return written[turn]


def read_answers(path: Path) -> Answers:
    """Reads an answers file (YAML or JSON). Raises Refusal with the place of what is wrong."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Refusal(f"The answers file {path} is larger than {MAX_BYTES // 1024 // 1024} MiB.")
        text = path.read_text("utf-8")
    except OSError as error:
        raise Refusal(f"The answers file {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise Refusal(f"The answers file {path} is not UTF-8 text.") from None
    value = _parse(path, text)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise Refusal(
            f"The answers file {path} is not a mapping from nodes to answers.",
            "Write `node: answer`, or `node:` with a list of answers in turn.",
        )
    return Answers(_as_json(path, value), str(path))


def _parse(path: Path, text: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        value = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise Refusal(f"{place}: {error.problem or 'this is not YAML'}", "An answers file is YAML or JSON.") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise Refusal(f"{path}: {str(error).splitlines()[0]}", "An answers file is YAML or JSON.") from None
    return value


def _as_json(path: Path, value: Any) -> Any:
    """The value as JSON has it: a date becomes its text. Raises Refusal for what JSON has no word for."""
    try:
        return json.loads(json.dumps(value, allow_nan=False, default=_iso))
    except (TypeError, ValueError, RecursionError) as error:
        raise Refusal(f"{path}: JSON has no word for one of the answers: {error}.") from None


def _iso(value: Any) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")
