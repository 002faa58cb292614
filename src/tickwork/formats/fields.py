"""The fields that a node, an edge and their parts may have: one table that reads, writes and describes them.

Each kind of value knows its JSON Schema, how it is read from a tree (reporting instead of raising, so that all faults
come out at once) and how it is written back. A value that equals its default is left to the default, so that the same
graph has the same digest whether or not somebody spelt a default out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, get_args

import msgspec

from tickwork.formats.letters import strange
from tickwork.formats.tree import Tree, plain
from tickwork.model.graph import Child, Effect, Human, Limits, Maximum, Node, RetryPolicy, Signal, TimeLimits, Timer
from tickwork.model.money import DECIMALS, MAX_TOKENS, MAX_USD, dollars
from tickwork.model.problems import Location, Problem
from tickwork.model.validation import GREATEST, MAX_GUESSES, SourceMap, nearest, shown

BROKEN: Any = object()
"""What a reader returns for a value that it has reported."""

_DURATION = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,9})?(?:ms|s|m|h|d))+")
_PART = re.compile(r"([0-9.]+)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
# What people write who come from elsewhere, and what it is called here.
_SYNONYMS: dict[str, tuple[str, ...]] = {
    "when": ("condition",), "if": ("condition", "when"), "condition": ("when",), "source": ("from",), "target": ("to",),
    "type": ("kind",), "timeout": ("limits",), "retries": ("retry",), "attempts": ("max_attempts",),
    "schema": ("answer_schema",), "question": ("prompt",), "nodes": ("tasks",), "function": ("run",),
    "handler": ("run",), "code": ("run",), "settings": ("config",), "options": ("config",), "budget": ("maximum",),
    "then": ("action",), "rules": ("policies",), "period": ("window",), "dry_run": ("shadow",), "tz": ("time_zone",),
}  # fmt: skip


class Reading:
    """One reading of a file: the problems found, and where everything stood."""

    def __init__(self, file: str) -> None:
        self.file, self.problems, self.sources = file, list[Problem](), SourceMap(file)
        self._guesses = 0

    def say(self, at: Location, code: str, message: str, hint: str = "", subject: str = "") -> None:
        """Report a problem."""
        self.problems.append(Problem(at, code, message, hint, subject))

    def near(self, word: str, known: Iterable[str]) -> str:
        """The known name that was probably meant; only for the first few words, as each is compared with all names."""
        self._guesses += 1
        return nearest(word, known) if self._guesses <= MAX_GUESSES else ""

    def unknown_key(self, key: str, at: Location, known: Mapping[str, Any], where: str) -> str:
        """Report a key that the format does not have; returns the one that was probably meant, or nothing."""
        near = next((word for word in _SYNONYMS.get(key, ()) if word in known), "") or self.near(key, known)
        hint = meant(key, near, f"known here: {', '.join(known)}")
        self.say(at, "unknown_key", f"{where} has no key `{shown(key)}`", hint)
        return near

    def wrong_type(self, tree: Tree, what: str, expects: str) -> Any:
        """Report a value of a wrong type."""
        value = plain(tree)
        found = "nothing" if value is None else f"{_kind_of(value)} {shown(msgspec.json.encode(value).decode())}"
        self.say(tree.at, "wrong_type", f"`{what}` has to be {expects}, not {found}", _mend(value, expects))
        return BROKEN


def meant(word: str, near: str, known: str) -> str:
    """How a word is mended that is not known: the near one, or the known ones, and the letter that only looks right."""
    hint = f"did you mean `{near}`?" if near else known
    return f"{hint} ({look})" if (look := strange(word)) else hint


class Kind(Protocol):
    """A kind of value."""

    def schema(self) -> dict[str, Any]:
        """Its JSON Schema."""

    def read(self, tree: Tree, path: str, reading: Reading) -> Any:
        """The value, or BROKEN once it is reported. `path` is where it lies in the graph: `nodes.0.retry`."""

    def write(self, value: Any) -> Any:
        """The value as a plain tree."""


@dataclass(frozen=True)
class Scalar:
    """A text, a whole number, a number or true/false."""

    types: tuple[type, ...]
    expects: str
    json_type: str

    def schema(self) -> dict[str, Any]:
        return {"type": self.json_type}

    def read(self, tree: Tree, path: str, reading: Reading) -> Any:
        value = tree.value
        if not isinstance(value, self.types) or (isinstance(value, bool) and bool not in self.types):
            return reading.wrong_type(tree, path.rpartition(".")[2], self.expects)
        if isinstance(value, str) and tree.text_at:
            reading.sources.put_text(path, *tree.text_at)
        return float(value) if isinstance(value, int) and self.json_type == "number" else value

    def write(self, value: Any) -> Any:
        return value


@dataclass(frozen=True)
class Duration:
    """Seconds, as a number or as a text with units."""

    def schema(self) -> dict[str, Any]:
        pattern = {"type": "string", "pattern": f"^{_DURATION.pattern}$"}
        return {"description": "seconds, or a text such as 30s, 5m, 1h30m, 2d", "anyOf": [{"type": "number"}, pattern]}

    def read(self, tree: Tree, path: str, reading: Reading) -> Any:
        value = tree.value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, str) and len(value) <= 64 and _DURATION.fullmatch(value):
            return float(sum(float(amount) * _SECONDS[unit] for amount, unit in _PART.findall(value)))
        return reading.wrong_type(tree, path.rpartition(".")[2], "a duration: seconds, or 30s, 5m, 2h, 1d")

    def write(self, value: Any) -> Any:
        if value != int(value) or not 1 <= value < 1e9:
            return int(value) if value == int(value) and abs(value) < 2**53 else value
        unit = next(unit for unit in ("d", "h", "m", "s") if value % _SECONDS[unit] == 0)
        return f"{int(value / _SECONDS[unit])}{unit}"


@dataclass(frozen=True)
class Money:
    """US dollars, exact: a number or a text, kept as the canonical text."""

    def schema(self) -> dict[str, Any]:
        number = {"type": "number", "minimum": 0, "maximum": MAX_USD}
        pattern = {"type": "string", "pattern": rf"^[0-9]{{1,10}}(\.[0-9]{{1,{DECIMALS}}}0*)?$"}
        return {"anyOf": [number, pattern]}

    def read(self, tree: Tree, path: str, reading: Reading) -> Any:
        name, value = path.rpartition(".")[2], tree.value
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return reading.wrong_type(tree, name, "an amount of US dollars: 0.05")
        try:
            return dollars(value)
        except ValueError as error:
            reading.say(tree.at, "bad_number", f"`{name}` {error}", "write it as 0.05")
            return BROKEN

    def write(self, value: Any) -> Any:
        return value


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.words)}

    def read(self, tree: Tree, path: str, reading: Reading) -> Any:
        name = path.rpartition(".")[2]
        if not isinstance(tree.value, str):
            return reading.wrong_type(tree, name, f"one of {', '.join(self.words)}")
        if tree.value in self.words:
            return next(word for word in self.words if word == tree.value)
        begun = (word for word in self.words if len(tree.value) > 2 and word.startswith(tree.value.lower()))
        near = nearest(tree.value, self.words) or next(begun, "")
        hint = meant(tree.value, near, f"it is one of {', '.join(self.words)}")
        reading.say(tree.at, "unknown_word", f"`{name}` cannot be `{shown(tree.value)}`", hint)
        return BROKEN

    def write(self, value: Any) -> Any:
        return value


@dataclass(frozen=True)
class Names:
    """A list of texts; a single one may stand alone."""

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}

    def read(self, tree: Tree, path: str, reading: Reading) -> Any:
        value = plain(tree)
        values = value if isinstance(value, list) else [value]
        if all(isinstance(word, str) for word in values):
            return tuple(values)
        return reading.wrong_type(tree, path.rpartition(".")[2], "a list of texts")

    def write(self, value: Any) -> Any:
        return list(value)


@dataclass(frozen=True)
class Free:
    """Any JSON value, or any JSON map."""

    only_maps: bool = False

    def schema(self) -> dict[str, Any]:
        return {"type": "object"} if self.only_maps else {}

    def read(self, tree: Tree, path: str, reading: Reading) -> Any:
        if self.only_maps and not isinstance(tree.value, dict):
            return reading.wrong_type(tree, path.rpartition(".")[2], "a map")
        _remember(tree, path, reading.sources)
        return plain(tree)

    def write(self, value: Any) -> Any:
        return value


@dataclass(frozen=True)
class Field:
    """One key of a record. `attribute`: the field of the struct, when it is called otherwise there."""

    name: str
    kind: Kind
    about: str
    required: bool = False
    limits: Mapping[str, Any] = field(default_factory=dict)
    """More of its JSON Schema: bounds that validation holds too."""

    def schema(self) -> dict[str, Any]:
        described = self.kind.schema()
        if "anyOf" in described and self.limits:
            described["anyOf"][0].update(self.limits)
        else:
            described.update(self.limits)
        return {**described, "description": self.about}


@dataclass(frozen=True)
class Record:
    """A map with known keys that becomes a struct. `short`: the key whose value may stand for the whole map."""

    struct: type[msgspec.Struct]
    what: str
    fields: tuple[Field, ...]
    short: str = ""

    def table(self) -> dict[str, Field]:
        """The fields by their key."""
        return {f.name: f for f in self.fields}

    def schema(self) -> dict[str, Any]:
        described: dict[str, Any] = {
            "type": "object",
            "properties": {f.name: f.schema() for f in self.fields},
            "additionalProperties": False,
        }
        if required := [f.name for f in self.fields if f.required]:
            described["required"] = required
        return {"anyOf": [described, self.table()[self.short].schema()]} if self.short else described

    def read(self, tree: Tree, path: str, reading: Reading) -> Any:
        if not isinstance(tree.value, dict):
            if not self.short or tree.value is None or isinstance(tree.value, list):
                return reading.wrong_type(tree, path.rpartition(".")[2], "a map")
            tree = Tree({self.short: tree}, tree.at, {self.short: tree.at})
        values = self.values(tree, path, reading)
        missing = [f.name for f in self.fields if f.required and f.name not in values]
        absent = [name for name in missing if name not in tree.keys]
        for name in absent:
            hint = f"add `{name}`: {self.table()[name].about}"
            reading.say(tree.at, "missing_key", f"{self.what} needs the key `{name}`", hint)
        return BROKEN if missing else self.struct(**values)

    def values(self, tree: Tree, path: str, reading: Reading) -> dict[str, Any]:
        """What the map says beyond the defaults, every key checked."""
        assert isinstance(tree.value, dict)  # noqa: S101 - the caller has looked
        known, values, defaults = self.table(), dict[str, Any](), _defaults(self.struct)
        for key, part in tree.value.items():
            if key not in known:
                reading.unknown_key(key, tree.keys.get(key, part.at), known, self.what)
                continue
            below = f"{path}.{key}"
            reading.sources.put("field", below, part.at)
            value = known[key].kind.read(part, below, reading)
            default = defaults.get(key, BROKEN)
            if value is not BROKEN and not (type(value) is type(default) and value == default):
                values[key] = value
        return values

    def write(self, value: Any) -> Any:
        tree = self.options(value)
        return tree[self.short] if list(tree) == [self.short] else tree

    def options(self, value: msgspec.Struct) -> dict[str, Any]:
        """What a struct says beyond its defaults, in the order of the table."""
        defaults, tree = _defaults(self.struct), dict[str, Any]()
        for f in self.fields:
            held = getattr(value, f.name)
            default = defaults.get(f.name, BROKEN)
            if held is not msgspec.UNSET and (held != default or type(held) is not type(default)):
                tree[f.name] = f.kind.write(held)
        return tree


def _defaults(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """Field name -> default value. UNSET stands for fields that may be left out without having one."""
    found = {}
    for f in msgspec.structs.fields(struct):
        if f.default is not msgspec.NODEFAULT:
            found[f.name] = f.default
        elif f.default_factory is not msgspec.NODEFAULT:
            found[f.name] = f.default_factory()
    return found


def _remember(tree: Tree, path: str, sources: SourceMap) -> None:
    """Keep the places inside a free value: a broken JSON Schema is shown where it is broken."""
    sources.put("field", path, tree.at)
    parts = tree.value.items() if isinstance(tree.value, dict) else ()
    for key, part in parts:
        _remember(part, f"{path}.{key}", sources)
    if isinstance(tree.value, list):
        for index, part in enumerate(tree.value):
            _remember(part, f"{path}.{index}", sources)


def _kind_of(value: Any) -> str:
    names = {
        bool: "the word",
        int: "the number",
        float: "the number",
        str: "the text",
        list: "the list",
        dict: "the map",
    }
    return names[type(value)]


def _mend(value: Any, expects: str) -> str:
    if value is None:
        return "give it a value, or take the key out"
    return "put it in quotes" if expects == "a text" and isinstance(value, int | float) else ""


TEXT = Scalar((str,), "a text", "string")
WHOLE = Scalar((int,), "a whole number", "integer")
NUMBER = Scalar((int, float), "a number", "number")
DURATION = Duration()
POSITIVE = {"exclusiveMinimum": 0}
NOT_NEGATIVE = {"minimum": 0}
_DEADLINE = "how long to wait until the default is taken, or the Task fails when there is none"

RETRY = Record(
    RetryPolicy,
    "retry",
    (
        Field("max_attempts", WHOLE, "how many attempts there may be, the first one included", limits={"minimum": 1}),
        Field("initial_interval", DURATION, "the delay before the second attempt", limits=NOT_NEGATIVE),
        Field("backoff", NUMBER, "what each delay is multiplied by to make the next", limits={"minimum": 1}),
        Field("max_interval", DURATION, "the longest delay", limits=NOT_NEGATIVE),
        Field("jitter", NUMBER, "how far a delay may stray, as a fraction", limits={"minimum": 0, "maximum": 1}),
        Field("non_retryable", Names(), "names of error types that no attempt can mend"),
    ),
)
LIMITS = Record(
    TimeLimits,
    "limits",
    (
        Field("start_to_close", DURATION, "the longest time that one attempt may run", limits=POSITIVE),
        Field("schedule_to_start", DURATION, "the longest time from the dispatch to the start", limits=POSITIVE),
        Field("heartbeat", DURATION, "the longest silence between two heartbeats", limits=POSITIVE),
        Field("grace", DURATION, "how long the code may take to stop once it is told to", limits=NOT_NEGATIVE),
    ),
)
MAXIMUM = Record(
    Maximum,
    "maximum",
    (
        Field(
            "tokens", WHOLE, "the most tokens, those of input and output", limits={"minimum": 0, "maximum": MAX_TOKENS}
        ),
        Field("cost_usd", Money(), f"the most US dollars, with at most {DECIMALS} digits after the point"),
    ),
)
HUMAN = Record(
    Human,
    "human",
    (
        Field("prompt", TEXT, "what is asked; {input} and {field} are replaced", required=True),
        Field("answer_schema", Free(only_maps=True), "JSON Schema, draft 2020-12, of the answer"),
        Field("deadline", DURATION, _DEADLINE, limits=POSITIVE),
        Field("default", Free(), "the answer that is taken at the deadline"),
        Field("who", Names(), "who may answer; everybody when it is left out"),
    ),
    short="prompt",
)
SIGNAL = Record(
    Signal,
    "signal",
    (
        Field("name", TEXT, "the signal that is waited for", required=True),
        Field("deadline", DURATION, _DEADLINE, limits=POSITIVE),
        Field("default", Free(), "the payload that is taken at the deadline"),
    ),
    short="name",
)
TIMER = Record(
    Timer,
    "timer",
    (Field("seconds", DURATION, "how long to wait", required=True, limits=NOT_NEGATIVE),),
    short="seconds",
)
CHILD = Record(
    Child,
    "child",
    (
        Field("name", TEXT, "the graph to run", required=True),
        Field("version", TEXT, "its version; the newest when it is left out"),
    ),
    short="name",
)
_GRAPH_LIMITS = {
    "records": "how many entries the log of one lifetime may have",
    "visits": "how often one node may be visited in one branch",
    "open_visits": "how many visits of a lifetime may be open at the same time",
    "depth": "how many fan-out groups may lie inside each other",
}
GRAPH_LIMITS = Record(
    Limits,
    "the limits of a graph",
    tuple(
        Field(name, WHOLE, about, limits={"minimum": 1, "maximum": GREATEST[name]})
        for name, about in _GRAPH_LIMITS.items()
    ),
)
NODE = Record(
    Node,
    "a node",
    (
        Field("title", TEXT, "what people see instead of the name"),
        Field("description", TEXT, "what it is for"),
        Field("run", TEXT, "its code: package.module:attribute, or path/to/file.py:attribute beside the graph file"),
        Field("retry", RETRY, "when a failed attempt is tried again"),
        Field("limits", LIMITS, "time limits of one attempt"),
        Field("effect", Choice(get_args(Effect)), "what running it twice would do; only of a Task that runs code"),
        Field("maximum", MAXIMUM, "the most that one attempt uses; reserved against budgets before it runs"),
        Field("isolation", Choice(("inline", "subprocess")), "where the code runs"),
        Field("memory_mb", WHOLE, "memory limit of a subprocess, in MiB", limits={"minimum": 1}),
        Field("human", HUMAN, "a person answers"),
        Field("signal", SIGNAL, "wait for a signal"),
        Field("timer", TIMER, "let time pass"),
        Field("child", CHILD, "run another graph to its end"),
        Field("config", Free(only_maps=True), "settings for the code"),
    ),
)
