"""Whether the parts of a graph hold what they should: Python code may put anything anywhere.

What is wrong is told in the words of the format, and replaced by what was probably meant or else by its default, so
that the other problems of the graph come out in the same go.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec

from tickwork.model.graph import AgentGraph, Edge, Limits, Node, Part, fields_of
from tickwork.model.words import nearest, shown

Told = Callable[[str, str, str], None]
"""Takes the path of a field (`nodes.0.retry.max_attempts`), what is wrong with it (`has to be a text, not 5`), and how
to mend it."""

P = TypeVar("P", bound=Part)

_WORDS: dict[Any, str] = {
    int: "a whole number", float: "a number", str: "a text", dict: "a map with texts as keys", tuple: "a list",
}  # fmt: skip
_EMPTY: dict[Any, Any] = {int: 0, float: 0.0, str: "", dict: {}, tuple: ()}


def sound_graph(graph: AgentGraph, told: Told) -> tuple[AgentGraph, set[str]]:
    """The graph without values of wrong types, each of which is told; and the codes of problems that may come of that.

    A graph that is sound is returned as it is.
    """
    wrong = set[str]()

    def tell(path: str, message: str, hint: str) -> None:
        wrong.add(path)
        told(path, message, hint)

    nodes = tuple([_sound(each, Node, f"nodes.{i}", tell) for i, each in enumerate(_items(graph, "nodes", tell))])
    edges = tuple([_sound(each, Edge, f"edges.{i}", tell) for i, each in enumerate(_items(graph, "edges", tell))])
    limits = _sound(graph.limits, Limits, "limits", tell) or Limits()
    texts = {name: getattr(graph, name) for name in ("name", "version", "description")}
    for name, value in texts.items():
        if not isinstance(value, str):
            _tell(name, value, str, tell)
            texts[name] = {"name": "unnamed", "version": "0.1.0"}.get(name, "")
    if not wrong:
        return graph, set()
    kept = tuple([edge for edge in edges if edge is not None])
    sound = AgentGraph(nodes=tuple([node for node in nodes if node is not None]), edges=kept, limits=limits, **texts)
    return sound, _doubtful(wrong)


def _doubtful(wrong: set[str]) -> set[str]:
    """What follows from a part that had to be left out: places by number, and what leads where."""
    from tickwork.model.validation import FROM_EDGES

    lost = any(path.count(".") < 2 and path[:5] in ("nodes", "edges") for path in wrong)
    ends = any(
        path.endswith((".source", ".target")) or (path.startswith("nodes") and path.endswith(".name")) for path in wrong
    )
    return {*FROM_EDGES, "unknown_node", "no_nodes", "bad_name"} if lost or ends else set()


def _items(graph: AgentGraph, field: str, tell: Told) -> tuple[Any, ...]:
    held: Any = getattr(graph, field)
    if isinstance(held, tuple | list):
        return tuple(held)
    _tell(field, held, tuple, tell)
    return ()


def _sound(part: Any, struct: type[P], path: str, tell: Told) -> P | None:
    """A part without values of wrong types; None when it is no such part at all."""
    if not isinstance(part, struct):
        what = struct.__name__
        tell(path, f"has to be a {what}, not {_shown(part)}", f"make it with {what}(...)")
        return None
    mended: dict[str, Any] = {}
    for field in fields_of(struct):
        held = getattr(part, field.name)
        kept = _kept(held, field.type, _default(field), f"{path}.{field.name}", tell)
        if kept is not held:
            mended[field.name] = kept
    return msgspec.structs.replace(part, **mended) if mended else part


def _default(field: Any) -> Any:
    if field.default is not msgspec.NODEFAULT:
        return field.default
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else msgspec.NODEFAULT


def _kept(held: Any, kind: Any, default: Any, path: str, tell: Told) -> Any:
    """The value itself when its type is right, else what stands for it once it is told."""
    options = [each for each in typing.get_args(kind) or (kind,) if each is not type(None)]
    optional = type(None) in typing.get_args(kind)
    if kind is Any or held is default or (held is None and optional):
        return held
    if typing.get_origin(kind) is Literal:
        return held if isinstance(held, str) and held in options else _meant(held, options, default, path, tell)
    plain = options[0] if optional else kind
    if isinstance(plain, type) and issubclass(plain, Part):
        found = _sound(held, plain, path, tell)
        return (None if optional else plain()) if found is None else found
    if _fits(held, plain):
        return held
    _tell(path, held, plain, tell)
    if default is not msgspec.NODEFAULT:
        return default
    return _EMPTY[typing.get_origin(plain) or plain]


def _fits(held: Any, plain: Any) -> bool:
    origin = typing.get_origin(plain) or plain
    if origin is float:
        return isinstance(held, int | float) and not isinstance(held, bool)
    if origin is int:
        return isinstance(held, int) and not isinstance(held, bool)
    if origin is tuple:
        return isinstance(held, tuple | list) and all(isinstance(each, str) for each in held)
    if origin is dict:
        return isinstance(held, dict) and all(isinstance(key, str) for key in held)
    return isinstance(held, origin)


def _meant(held: Any, words: list[str], default: Any, path: str, tell: Told) -> str:
    """The word that was probably meant."""
    near = nearest(held, words) if isinstance(held, str) else ""
    hint = f"did you mean `{near}`?" if near else f"it is one of {', '.join(words)}"
    tell(path, f"cannot be {_shown(held)}", hint)
    return near or (words[0] if default is msgspec.NODEFAULT else default)


def _tell(path: str, held: Any, plain: Any, tell: Told) -> None:
    origin = typing.get_origin(plain) or plain
    expected = "a list of texts" if plain == tuple[str, ...] else _WORDS[origin]
    tell(path, f"has to be {expected}, not {_shown(held)}", "")


def _shown(held: Any) -> str:
    if held is None or isinstance(held, bool | int | float):
        return f"`{held}`"
    return f'"{shown(held)}"' if isinstance(held, str) else f"an object of type {type(held).__name__}"
