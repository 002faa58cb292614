"""YAML with places, and only the part of YAML that says data plainly.

The tree is built from the parser's events, so that what is refused is refused before anything was built of it:
anchors, aliases, tags, merge keys, a second document, a key given twice, too much or too deep. Plain words mean what
YAML 1.2 says: `yes`, `no`, `on` and `off` are texts. Keys are always texts.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

from tickwork.formats.tree import Budget, Plain, Tree, Unreadable, given_twice, number
from tickwork.model.problems import Location, Problem
from tickwork.model.validation import shown

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_BASED = re.compile(r"0o[0-7]{1,21}|0x[0-9a-fA-F]{1,16}")
_INFINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def read_yaml(text: str, file: str = "", problems: list[Problem] | None = None) -> Tree:
    """The tree of a YAML text; an empty one is an empty mapping. Raises Unreadable at the first fault.

    With `problems`, a key given twice is added to them, and the first one stays.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the parser warns of what is refused here anyway
        try:
            return _Builder(YAML(typ="safe", pure=True).parse(text), text, file, problems).document()
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            at = Location(file, mark.line + 1, mark.column + 1) if mark else Location(file)
            said = " ".join(part for part in (error.problem, error.context) if part)
            raise Unreadable(at, f"this is not YAML: {shown(said)}", _hint(said)) from None
        except (YAMLError, ValueError, AssertionError, IndexError, OverflowError) as error:
            # Some faults come from the parser's inside without a place, an escape above U+10FFFF for example.
            raise Unreadable(Location(file), f"this is not YAML: {shown(str(error))}") from None


def _hint(said: str) -> str:
    if "\\t" in said or "'\\t'" in said or "tab" in said.lower():
        return "indent with spaces, not with tabs"
    if "mapping values are not allowed" in said:
        return "put a text that has a colon in quotes, and check the indentation"
    return "check the indentation and the quotes above this place"


class _Builder:
    """Makes the tree of one document from the parser's events."""

    def __init__(self, events: Iterator[Any], text: str, file: str, problems: list[Problem] | None) -> None:
        self.events, self.text, self.file, self.problems = events, text, file, problems
        self.budget = Budget()

    def document(self) -> Tree:
        from ruamel.yaml.events import DocumentStartEvent, StreamEndEvent

        next(self.events)
        event = next(self.events)
        if isinstance(event, StreamEndEvent):
            return Tree({}, Location(self.file, 1, 1))
        tree = self.value(next(self.events), 1)
        next(self.events)
        event = next(self.events)
        if isinstance(event, DocumentStartEvent):
            raise Unreadable(self.at(event), "a second YAML document begins here", "keep one of them in this file")
        return tree

    def at(self, event: Any) -> Location:
        mark = event.start_mark
        return Location(self.file, mark.line + 1, mark.column + 1)

    def value(self, event: Any, depth: int) -> Tree:
        from ruamel.yaml.events import AliasEvent, MappingStartEvent, SequenceStartEvent

        at = self.at(event)
        self.budget.take(at, depth)
        if isinstance(event, AliasEvent):
            message = f"the alias `*{shown(str(event.anchor))}` is not allowed here"
            raise Unreadable(at, message, "write the value out where it is needed", "yaml_alias")
        if event.anchor is not None:
            message = f"the anchor `&{shown(str(event.anchor))}` is not allowed here"
            raise Unreadable(at, message, "take it out; write the value out where it is needed", "yaml_anchor")
        tag = event.tag
        if tag is not None:
            hint = "take it out; texts, numbers, lists and maps need no tag"
            raise Unreadable(at, f"the tag `{shown(str(tag))}` is not allowed here", hint, "yaml_tag")
        if isinstance(event, MappingStartEvent):
            return self.mapping(at, depth)
        if isinstance(event, SequenceStartEvent):
            return self.sequence(at, depth)
        return self.scalar(event, at)

    def sequence(self, at: Location, depth: int) -> Tree:
        from ruamel.yaml.events import SequenceEndEvent

        parts: list[Tree] = []
        while not isinstance(event := next(self.events), SequenceEndEvent):
            parts.append(self.value(event, depth + 1))
        return Tree(parts, at)

    def mapping(self, at: Location, depth: int) -> Tree:
        from ruamel.yaml.events import MappingEndEvent, ScalarEvent

        parts: dict[str, Tree] = {}
        keys: dict[str, Location] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            key = self.value(event, depth + 1)
            if not isinstance(event, ScalarEvent):
                raise Unreadable(key.at, "a key has to be a text", "write `key: value`")
            name = str(event.value)
            if name == "<<" and event.implicit[0]:
                hint = "write the entries out where they are needed"
                raise Unreadable(key.at, "the merge key `<<` is not allowed here", hint, "yaml_merge_key")
            if name in parts:
                given_twice(name, key.at, keys[name], self.problems)
                self.value(next(self.events), depth + 1)
                continue
            keys[name] = key.at
            parts[name] = self.value(next(self.events), depth + 1)
        return Tree(parts, at, keys)

    def scalar(self, event: Any, at: Location) -> Tree:
        value: str = event.value
        if event.style is None and event.implicit[0]:
            resolved = _resolve(value, at)
            if not isinstance(resolved, str):
                return Tree(resolved, at)
        if any("\ud800" <= sign <= "\udfff" for sign in value):
            raise Unreadable(at, "this text has half of a surrogate pair", "write both halves, or none")
        return Tree(value, at, text_at=self.literal(event, value, at))

    def literal(self, event: Any, value: str, at: Location) -> tuple[Location, int] | None:
        """Where the letters of a text begin, when they stand in the file unchanged."""
        start, end = event.start_mark.index, event.end_mark.index
        if event.style == "|":
            first = self.text.find("\n", start) + 1
            line = self.text[first : self.text.find("\n", first)]
            indent = len(line) - len(line.lstrip(" "))
            return (Location(at.file, at.line + 1, indent + 1), indent + 1) if first and line.strip() else None
        quote = 1 if event.style in ("'", '"') else 0
        if self.text[start + quote : end - quote] == value and "\n" not in value:
            return Location(at.file, at.line, at.column + quote), 1
        return None


def _resolve(word: str, at: Location) -> Plain:
    """What a word without quotes means in YAML 1.2."""
    if word in _NULL:
        return None
    if word in _BOOL:
        return _BOOL[word]
    if _NUMBER.fullmatch(word):
        return number(word, at)
    if _BASED.fullmatch(word):
        return number(str(int(word, 0)), at)
    if _INFINITE.fullmatch(word):
        raise Unreadable(at, f"`{word}` is not a finite number", "write a number, or leave the key out", "bad_number")
    return word
