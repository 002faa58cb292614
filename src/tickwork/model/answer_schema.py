"""What is wrong with the JSON Schema of a person's answer: found when the graph is read, not when somebody answers.

A schema comes from anybody and judges texts of anybody, inside the service. So it may refer only to itself, must not
refer in circles, and has no pattern that could keep the regular expression engine busy for ever.
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from tickwork.model.patterns import pattern_fault
from tickwork.model.words import shown

_ONE = ("not", "if", "then", "else", "additionalProperties", "items", "contains", "propertyNames")
_ONE_MORE = ("unevaluatedItems", "unevaluatedProperties", "contentSchema", "additionalItems")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
# What is asked of the same value again: a circle through these has no end.
_SAME_VALUE = frozenset({"not", "if", "then", "else", "allOf", "anyOf", "oneOf", "dependentSchemas", "$ref"})

MAX_ASKED = 10_000
"""With how many schemas one value may be compared, each `$ref` followed."""

_DRAFT = "see JSON Schema, draft 2020-12"


class SchemaFault(NamedTuple):
    """What is wrong, where in the schema, and how to mend it."""

    path: tuple[str, ...]
    message: str
    hint: str = _DRAFT


def schema_faults(schema: dict[str, Any]) -> list[SchemaFault]:
    """Everything that makes a JSON Schema unfit to judge answers; an empty list when it is sound."""
    import jsonschema

    found = [fault for path, part in _parts(schema) for fault in _own_faults(path, part, schema)]
    if found:
        return found
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        return [SchemaFault(tuple(str(part) for part in error.absolute_path), shown(error.message))]
    except Exception as error:  # noqa: BLE001 - whatever breaks the library that judges answers is the schema's fault
        return [SchemaFault((), shown(f"{type(error).__name__}: {error}"))]
    return _endless(schema)


def default_fault(schema: dict[str, Any], default: Any) -> str:
    """How a default answer breaks its schema. Patterns are left to the time of the answer."""
    import jsonschema

    if re.search(r'"(pattern|patternProperties)":', json.dumps(schema)):
        return ""
    try:
        error = next(jsonschema.Draft202012Validator(schema).iter_errors(default), None)
    except RecursionError:
        return "it is nested too deep to be compared"
    return error.message if error else ""


def _below(part: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """The schemas directly inside a schema: the keyword, the way there and the schema."""
    for key in (*_ONE, *_ONE_MORE):
        if isinstance(part.get(key), dict):
            yield key, (key,), part[key]
    for key in _LISTS:
        if isinstance(part.get(key), list):
            yield from ((key, (key, str(index)), each) for index, each in enumerate(part[key]))
    for key in _MAPS:
        if isinstance(part.get(key), dict):
            yield from ((key, (key, str(name)), each) for name, each in part[key].items())


def _parts(schema: Any) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """A schema and all schemas inside it, each with the way there."""
    waiting: deque[tuple[tuple[str, ...], Any]] = deque([((), schema)])
    while waiting:
        path, part = waiting.popleft()
        if isinstance(part, dict):
            yield path, part
            waiting.extend(((*path, *way), below) for _, way, below in _below(part))


def _own_faults(path: tuple[str, ...], part: dict[str, Any], schema: dict[str, Any]) -> Iterator[SchemaFault]:
    """What one schema gets wrong by itself."""
    ref = part.get("$ref")
    if isinstance(ref, str):
        if not (ref == "#" or ref.startswith("#/")):
            hint = "copy what it refers to into `$defs`, and write #/$defs/NAME"
            yield SchemaFault((*path, "$ref"), f"`$ref: {shown(ref)}` leads out of the schema", hint)
        elif _target(ref, schema) is None:
            hint = "add it, or correct the reference: #/$defs/NAME"
            yield SchemaFault((*path, "$ref"), f"`$ref: {shown(ref)}` leads to nothing in the schema", hint)
    for key in ("$dynamicRef", "$recursiveRef"):
        if key in part:
            yield SchemaFault((*path, key), f"`{key}` is not understood here", "write $ref: #/$defs/NAME")
    if path and "$id" in part:
        yield SchemaFault((*path, "$id"), "an `$id` inside a schema changes what `$ref` means", "take it out")
    if isinstance(part.get("pattern"), str) and (fault := pattern_fault(part["pattern"])):
        yield SchemaFault((*path, "pattern"), *fault)
    patterns = part.get("patternProperties")
    for pattern in patterns if isinstance(patterns, dict) else ():
        if fault := pattern_fault(str(pattern)):
            yield SchemaFault((*path, "patternProperties", str(pattern)), *fault)


def _target(ref: str, schema: Any) -> Any:
    """What a reference inside a schema leads to; None: to nothing that is a schema."""
    from urllib.parse import unquote

    for word in unquote(ref).split("/")[1:]:
        key = word.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list):
            schema = schema[int(key)] if key.isascii() and key.isdigit() and int(key[:9]) < len(schema) else None
        else:
            schema = schema.get(key) if isinstance(schema, dict) else None
    return schema if isinstance(schema, dict | bool) else None


def _endless(schema: dict[str, Any]) -> list[SchemaFault]:
    """References that ask the same value the same question for ever, or as good as for ever."""
    costs: dict[int, float] = {}

    def cost(part: Any) -> float:
        """How many schemas are asked of one value: infinite in a circle."""
        if not isinstance(part, dict):
            return 1
        if id(part) not in costs:
            costs[id(part)] = math.inf
            below = [cost(each) for key, _, each in _below(part) if key in _SAME_VALUE]
            if isinstance(part.get("$ref"), str):
                below.append(cost(_target(part["$ref"], schema)))
            costs[id(part)] = 1 + sum(below)
        return costs[id(part)]

    for path, part in _parts(schema):
        try:
            asked = cost(part)
        except RecursionError:
            return [SchemaFault((), "it refers from one `$ref` to the next too many times", "write some of them out")]
        if asked == math.inf and isinstance(part.get("$ref"), str):
            hint = "let it refer to itself only below `properties` or `items`"
            return [SchemaFault((*path, "$ref"), f"`$ref: {shown(part['$ref'])}` leads back to itself", hint)]
        if math.inf > asked > MAX_ASKED:
            message = f"one value would be compared with more than {MAX_ASKED} schemas"
            return [SchemaFault(path, message, "let fewer `$ref` lead to the same place")]
    return []
