"""The fields that a policy and its parts may have, and the JSON Schema of a policy document.

As with graphs, one table reads, writes and describes them; what equals its default is left to the default, so that a
document has the same digest whether or not somebody spelt a default out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, get_args

from tickwork.formats.fields import BROKEN, DURATION, TEXT, Choice, Field, Reading, Record, Scalar, meant
from tickwork.formats.letters import strange
from tickwork.formats.tree import Tree
from tickwork.model.condition import MAX_LENGTH
from tickwork.model.graph import NodeKind
from tickwork.model.ids import NAME, TENANT
from tickwork.model.policy import MAX_POLICIES, Action, Calendar, Engine, Match, Policy, Scope, Window
from tickwork.model.words import CONTROL, nearest, shown

MAX_PATTERN = 256
"""Characters of one pattern, and of a label's name."""

MAX_PATTERNS = 100
"""Patterns of one key of `match`, and its labels."""

MAX_DESCRIPTION = 4_096
LONGEST_WINDOW = 366 * 86_400

NAME_RULES = "letters, digits, `_` and `-`, a letter first, at most 128 characters"
TENANT_RULES = "letters, digits, `_` and `-`, at most 63 characters"
WINDOW_HINT = "write 30m, 24h or 7d; or hour, day, week, month; or {calendar: day, time_zone: Europe/Berlin}"

_SLIDING = re.compile(r"(?:[0-9]{1,6}[mhd])+")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]{0,63}")
_FLAG = Scalar((bool,), "true or false", "boolean")


@dataclass(frozen=True)
class Word:
    """A text that has to look like a name."""

    pattern: re.Pattern[str]
    what: str
    rules: str

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{self.pattern.pattern}$"}

    def read(self, tree: Tree, path: str, reading: Reading) -> Any:
        value = TEXT.read(tree, path, reading)
        if value is BROKEN or self.pattern.fullmatch(value):
            return value
        hint = f"a name has {self.rules}" + (f" ({look})" if (look := strange(value)) else "")
        reading.say(tree.at, "bad_name", f"`{shown(value)}` is not a name for {self.what}", hint)
        return BROKEN

    def write(self, value: Any) -> Any:
        return value


@dataclass(frozen=True)
class Text:
    """A text for people or for an engine, of bounded length, that can be shown."""

    longest: int

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": self.longest}

    def read(self, tree: Tree, path: str, reading: Reading) -> Any:
        value = TEXT.read(tree, path, reading)
        return value if value is BROKEN or text_is_fine(tree, path, self.longest, reading) else BROKEN

    def write(self, value: Any) -> Any:
        return value


def text_is_fine(tree: Tree, path: str, longest: int, reading: Reading) -> bool:
    """Whether a text has a length that is allowed and no control characters; reported otherwise."""
    name, value = path.rpartition(".")[2], str(tree.value)
    if len(value) > longest:
        message = f"`{shown(name)}` has {len(value)} characters; at most {longest} are allowed"
        reading.say(tree.at, "too_long", message, "shorten it")
        return False
    if found := CONTROL.search(value):
        message = f"`{shown(name)}` has the character U+{ord(found[0]):04X}, which cannot be shown"
        reading.say(tree.at, "control_character", message, "take it out; line breaks and tabs are fine")
        return False
    return True


@dataclass(frozen=True)
class Patterns:
    """A pattern, or a list of them. `ascii_only`: what they are compared with is a name of ours."""

    ascii_only: bool = False

    def schema(self) -> dict[str, Any]:
        one: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": MAX_PATTERN}
        if self.ascii_only:
            one["pattern"] = r"^[\x20-\x7e]*$"
        return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1, "maxItems": MAX_PATTERNS}]}

    def read(self, tree: Tree, path: str, reading: Reading) -> Any:
        name = path.rpartition(".")[2]
        parts = tree.value if isinstance(tree.value, list) else [tree]
        if not parts:
            hint = "leave the key out when everything is meant"
            reading.say(tree.at, "bad_pattern", f"`{name}` has no pattern: it would match nothing", hint)
            return BROKEN
        if len(parts) > MAX_PATTERNS:
            message = f"`{name}` has {len(parts)} patterns; at most {MAX_PATTERNS} are allowed"
            reading.say(tree.at, "too_many", message, "let one pattern stand for several: run_*")
            return BROKEN
        fine = [self.one(part, path, reading) for part in parts]
        return tuple(str(part.value) for part in parts) if all(fine) else BROKEN

    def one(self, tree: Tree, path: str, reading: Reading) -> bool:
        """Whether a pattern can be used; reported otherwise."""
        name = path.rpartition(".")[2]
        if not isinstance(tree.value, str):
            reading.wrong_type(tree, name, "a text or a list of texts")
            return False
        if not tree.value:
            reading.say(tree.at, "bad_pattern", f"`{name}` has an empty pattern, which matches nothing", "take it out")
            return False
        if self.ascii_only and (look := strange(tree.value)):
            message = f"the pattern `{shown(tree.value)}` can never match: such names have only ASCII letters"
            reading.say(tree.at, "bad_pattern", message, look)
            return False
        return text_is_fine(tree, path, MAX_PATTERN, reading)

    def write(self, value: Any) -> Any:
        return value[0] if len(value) == 1 else list(value)


@dataclass(frozen=True)
class Labels:
    """A map from names of labels to the patterns of their values."""

    def schema(self) -> dict[str, Any]:
        text = {"type": "string", "maxLength": MAX_PATTERN}
        names = {"minLength": 1, "maxLength": MAX_PATTERN}
        return {
            "type": "object",
            "propertyNames": names,
            "additionalProperties": text,
            "minProperties": 1,
            "maxProperties": MAX_PATTERNS,
        }

    def read(self, tree: Tree, path: str, reading: Reading) -> Any:
        if not isinstance(tree.value, dict):
            return reading.wrong_type(tree, "labels", "a map of labels to patterns: {team: research}")
        if not 1 <= len(tree.value) <= MAX_PATTERNS:
            message = f"`labels` has {len(tree.value)} entries; it has to have 1 to {MAX_PATTERNS}"
            reading.say(tree.at, "too_many" if tree.value else "bad_pattern", message, "leave out what is not needed")
            return BROKEN
        found: dict[str, Any] = {}
        for key, part in tree.value.items():
            name = Tree(key, tree.keys[key])
            fine = text_is_fine(name, f"{path}.label", MAX_PATTERN, reading)
            if not key:
                reading.say(name.at, "bad_pattern", "a label has an empty name", "give it a name")
            value = Text(MAX_PATTERN).read(part, f"{path}.{key.replace('.', ' ')}", reading)
            found[key] = value if fine and key else BROKEN
        return BROKEN if BROKEN in found.values() else found

    def write(self, value: Any) -> Any:
        return dict(value)


@dataclass(frozen=True)
class Zone:
    """The name of a time zone."""

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{_ZONE.pattern}$"}

    def read(self, tree: Tree, path: str, reading: Reading) -> Any:
        value = TEXT.read(tree, path, reading)
        if value is BROKEN or value == "UTC" or value in time_zones():
            return value
        if not time_zones():
            message = f"the time zone `{shown(value)}` cannot be looked up: this machine has no time zone data"
            reading.say(tree.at, "no_time_zones", message, "pip install tzdata, or use UTC")
            return BROKEN
        hint = meant(value, reading.near(value, time_zones()), "write an IANA name: Europe/Berlin, America/New_York")
        reading.say(tree.at, "unknown_time_zone", f"there is no time zone `{shown(value)}`", hint)
        return BROKEN

    def write(self, value: Any) -> Any:
        return value


@lru_cache(maxsize=1)
def time_zones() -> frozenset[str]:
    """The names of all time zones that this machine knows. Empty where it has no data, as Windows without tzdata."""
    from zoneinfo import available_timezones

    return frozenset(available_timezones())


_CALENDAR = Record(
    Window,
    "window",
    (
        Field(
            "calendar",
            Choice(get_args(Calendar)),
            "the period, from its start on; a week begins on Monday",
            required=True,
        ),
        Field("time_zone", Zone(), "an IANA name, for example Europe/Berlin; UTC when it is left out"),
    ),
)


@dataclass(frozen=True)
class Span:
    """A window: sliding (`24h`), a calendar period (`day`), or a period in a time zone."""

    def schema(self) -> dict[str, Any]:
        words = list(get_args(Calendar))
        sliding = {"type": "string", "pattern": f"^{_SLIDING.pattern}$"}
        return {"anyOf": [sliding, {"enum": words}, _CALENDAR.schema()]}

    def read(self, tree: Tree, path: str, reading: Reading) -> Any:
        value = tree.value
        if isinstance(value, dict):
            return _CALENDAR.read(tree, path, reading)
        if not isinstance(value, str):
            broken = reading.wrong_type(tree, "window", "a span of time with its unit")
            last = reading.problems.pop()
            reading.say(last.location, last.code, last.message, WINDOW_HINT)
            return broken
        for word in get_args(Calendar):
            if value == word:
                return Window(calendar=word)
        if not _SLIDING.fullmatch(value):
            near = nearest(value, get_args(Calendar))
            reading.say(tree.at, "bad_window", f"`window` cannot be `{shown(value)}`", meant(value, near, WINDOW_HINT))
            return BROKEN
        seconds = int(DURATION.read(tree, path, reading))
        if not 60 <= seconds <= LONGEST_WINDOW:
            message = f"`window` is {value}; it has to be at least 1m and at most {LONGEST_WINDOW // 86_400}d"
            reading.say(tree.at, "bad_window", message, "leave it out to add up everything since the first record")
            return BROKEN
        return Window(seconds=seconds)

    def write(self, value: Any) -> Any:
        if value.calendar is None:
            return DURATION.write(float(value.seconds))
        options = _CALENDAR.options(value)
        return value.calendar if list(options) == ["calendar"] else options


NAMES = Word(NAME, "a policy", NAME_RULES)
TENANTS = Word(TENANT, "a tenant", TENANT_RULES)
GRAPHS = Word(NAME, "a graph", NAME_RULES)
ACTION = Choice(get_args(Action))

MATCH = Record(
    Match,
    "match",
    (
        Field("kind", Choice(get_args(NodeKind)), "task or plan"),
        Field("name", Patterns(ascii_only=True), "names of nodes; patterns with *, ? and [..]"),
        Field("graph", Patterns(ascii_only=True), "names of graphs; patterns"),
        Field("labels", Labels(), "labels that the lifetime has; the values are patterns"),
        Field("model", Patterns(), "models, as the execution's telemetry names them; patterns"),
    ),
)
POLICY = Record(
    Policy,
    "a policy",
    (
        Field("name", NAMES, "what verdicts call it; unique in its document", required=True),
        Field("description", Text(MAX_DESCRIPTION), "for people: what it is for, whom to ask"),
        Field("scope", Choice(get_args(Scope)), "what it judges; lifetime when it is left out"),
        Field("match", MATCH, "what it is about; everything when it is left out"),
        Field("window", Span(), "only of the scope tenant: the time that is added up; everything when it is left out"),
        Field(
            "when",
            Text(MAX_LENGTH),
            "the condition, true on a breach: sum(tokens_used) > 10000",
            True,
            {"minLength": 1},
        ),
        Field("action", ACTION, "what is done on a breach", required=True),
        Field("shadow", _FLAG, "recorded, not enforced"),
        Field("engine", Choice(get_args(Engine)), "the language of `when`; cel when it is left out"),
    ),
)
DOCUMENT_KEYS = {
    "version": "the version of this format: 1",
    "tenant": "whose policies these are; of every tenant when it is left out",
    "graph": "the name of the graph that they hold for; every graph when it is left out",
    "policies": "the policies: maps, or texts `condition -> action`",
}


def policy_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a policy document, YAML or JSON."""
    arrow = "|".join(get_args(Action))
    line = {
        "type": "string",
        "pattern": rf"\S[\s\S]*->\s*({arrow})\s*$",
        "description": "a whole policy of the scope lifetime: `sum(tokens_used) > 10 000 -> abort_lifetime`",
    }
    policy = POLICY.schema()
    policy["dependentSchemas"] = {"window": {"properties": {"scope": {"const": "tenant"}}, "required": ["scope"]}}
    types: dict[str, dict[str, Any]] = {
        "version": {"type": "integer", "const": 1},
        "tenant": TENANTS.schema(),
        "graph": GRAPHS.schema(),
        "policies": {
            "type": "array",
            "items": {"anyOf": [{"$ref": "#/$defs/policy"}, line]},
            "minItems": 1,
            "maxItems": MAX_POLICIES,
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tickwork policies",
        "type": "object",
        "properties": {key: {**types[key], "description": about} for key, about in DOCUMENT_KEYS.items()},
        "required": ["version", "policies"],
        "additionalProperties": False,
        "$defs": {"policy": policy},
    }
