"""A plain tree as YAML that people like to read, and that every YAML reader understands the same way.

A general YAML library would decide about quotes by its own reading rules; this writer quotes whatever could be taken
for anything but the text it is, so what is written is what is read back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_WORD = re.compile(r"[A-Za-z_][\w./+@()-]*(?:[ :]?[\w./+@()>-]+)*", re.ASCII)
_VERSION_OR_TIME = re.compile(r"\d+\.\d+\.\d+[-+.0-9A-Za-z]*|\d+(?:s|m|h|d)", re.ASCII)
# Words that some reader takes for something else than a text.
_TAKEN = frozenset({"y", "yes", "n", "no", "true", "false", "on", "off", "null", "none", "nan", "inf"})
_UNPRINTABLE = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_LITERAL = re.compile(r"(?:[\t\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*\n)+")
_WIDTH = 100


def write_yaml(tree: dict[str, Any]) -> str:
    """The tree as block-style YAML; short maps inside lists stand on one line."""
    return "\n".join(_map(tree, "")) + "\n"


def _map(tree: dict[str, Any], indent: str) -> Iterator[str]:
    for key, value in tree.items():
        yield from _entry(f"{indent}{_scalar(key)}:", value, indent)


def _entry(head: str, value: Any, indent: str) -> Iterator[str]:
    """A key or a dash, and its value below or beside it."""
    if isinstance(value, dict) and value:
        yield head
        yield from _map(value, indent + "  ")
    elif isinstance(value, list) and value:
        flow = _flow(value)
        if len(head) + len(flow) < _WIDTH and not any(isinstance(part, dict) for part in value) and "->" not in flow:
            yield f"{head} {flow}"
            return
        yield head
        for part in value:
            yield from _item(part, indent + "  ")
    elif isinstance(value, str) and _fits_a_block(value):
        yield f"{head} |{'' if value.endswith(chr(10)) else '-'}"
        for line in value.removesuffix("\n").split("\n"):
            yield f"{indent}  {line}" if line else ""
    else:
        yield f"{head} {_scalar(value)}"


def _item(part: Any, indent: str) -> Iterator[str]:
    flow = _flow(part)
    if isinstance(part, dict | list) and part and len(indent) + len(flow) > _WIDTH:
        if isinstance(part, list):
            yield from _entry(f"{indent}-", part, indent)
            return
        lines = list(_map(part, indent + "  "))
        yield from [f"{indent}- {lines[0].lstrip()}", *lines[1:]]
    else:
        yield f"{indent}- {flow}"


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(part)}" for key, part in value.items()) + "}"
    return "[" + ", ".join(map(_flow, value)) + "]" if isinstance(value, list) else _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        plain = _VERSION_OR_TIME.fullmatch(value) or (len(value) <= _WIDTH and _WORD.fullmatch(value))
        return value if plain and value.lower() not in _TAKEN else _quoted(value)
    return json.dumps(value)


def _quoted(text: str) -> str:
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))


def _fits_a_block(text: str) -> bool:
    """Whether a text of several lines can stand as it is: shown as `|`, which keeps every letter."""
    whole = text if text.endswith("\n") else text + "\n"
    first = text.split("\n", 1)[0]
    return (
        "\n" in text.removesuffix("\n")
        and not text.endswith("\n\n")
        and bool(first.strip())
        and first[0] not in " \t"
        and bool(_LITERAL.fullmatch(whole))
    )
