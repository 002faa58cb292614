"""Policy documents in and out of files: YAML or JSON, bounded, every problem at once with its place.

A document that has a problem is not used at all: half a set of guardrails is none. Conditions are compiled here once,
to find their faults; whoever judges compiles them again from the document.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tickwork.errors import MissingExtra, NotFound, PolicyInvalid
from tickwork.formats import content
from tickwork.formats.fields import BROKEN, Reading
from tickwork.formats.letters import Letters
from tickwork.formats.policy_conditions import ARROW, condition, name_of
from tickwork.formats.policy_fields import ACTION, DOCUMENT_KEYS, GRAPHS, POLICY, TENANTS, text_is_fine
from tickwork.formats.tree import Tree, Unreadable, decoded
from tickwork.model.condition import MAX_LENGTH, ConditionError
from tickwork.model.expressions import compile_expression
from tickwork.model.policy import MAX_POLICIES, Engine, Policy, PolicyDocument, Scope
from tickwork.model.problems import Location, Problem
from tickwork.model.words import shown

FORMAT_VERSION = 1
SUFFIXES = (".yaml", ".yml", ".json")

_EXAMPLES: dict[Engine, str] = {
    "cel": "a condition is a CEL expression that is true on a breach, as in: sum(tokens_used) > 10000",
    "rego": "a condition is Rego that is true on a breach, as in: sum(tokens_used) > 10000",
}
_SHORT = "write `condition -> action`, as in: sum(tokens_used) > 10000 -> abort_lifetime; or a map"


def read_policies(text: str, file: str = "") -> PolicyDocument:
    """The document that a text holds: JSON when `file` ends with .json, else YAML.

    Raises PolicyInvalid with every problem.
    """
    document, problems = _read(text, file)
    if document is None or problems:
        raise PolicyInvalid(problems)
    return document


def load_policies(path: Path | str) -> PolicyDocument:
    """The document of a file. Raises NotFound, StorageError when it cannot be read, PolicyInvalid with all problems."""
    document, problems = _load(Path(path))
    if document is None or problems:
        raise PolicyInvalid(problems)
    return document


def find_policies(folder: Path | str) -> list[tuple[Path, PolicyDocument]]:
    """The documents of a folder, in the order of their names: *.yaml, *.yml and *.json, those with a dot first not.

    Raises NotFound when there is no such folder, since no guardrails would be mistaken for having none to keep;
    StorageError; PolicyInvalid with the problems of all files together, names that two of them give included.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotFound(f"there is no folder {folder}")
    files = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and not p.name.startswith(".") and p.is_file())
    found: list[tuple[Path, PolicyDocument]] = []
    problems: list[Problem] = []
    for file in files:
        document, said = _load(file)
        problems += said
        if document is not None:
            found.append((file, document))
    problems += _clashes(found)
    if problems:
        raise PolicyInvalid(problems)
    return found


def write_policies(document: PolicyDocument) -> str:
    """A document as YAML. Reading it back gives the same digest."""
    from tickwork.formats.yaml_writer import write_yaml

    tree: dict[str, Any] = {"version": document.version}
    tree |= {key: value for key in ("tenant", "graph") if (value := getattr(document, key))}
    tree["policies"] = [POLICY.options(policy) for policy in document.policies]
    return write_yaml(tree)


def _load(path: Path) -> tuple[PolicyDocument | None, list[Problem]]:
    try:
        text = content(path)
    except Unreadable as error:
        return None, [_of_policies(error.problem)]
    return _read(text, str(path))


def _clashes(found: list[tuple[Path, PolicyDocument]]) -> list[Problem]:
    """Policies of one layer and one name in two files: verdicts could not tell them apart."""
    problems: list[Problem] = []
    seen: dict[tuple[str, str, str], list[tuple[str, Path]]] = {}
    for path, document in found:
        for policy in document.policies:
            others = seen.setdefault((document.layer, document.graph, policy.name), [])
            for tenant, other in others:
                if tenant == document.tenant or not tenant or not document.tenant:
                    message = (
                        f"the policy `{policy.name}` stands in {other.name} already, for the same {document.layer}"
                    )
                    hint = "rename one of them, or take one out"
                    problems.append(Problem(Location(str(path)), "duplicate_name", message, hint, policy.name))
                    break
            others.append((document.tenant, path))
    return problems


def _read(text: str, file: str) -> tuple[PolicyDocument | None, list[Problem]]:
    from tickwork.formats.json import read_json
    from tickwork.formats.yaml import read_yaml

    reading = Reading(file)
    try:
        text = decoded(text.encode("utf-8", "surrogatepass"), file)
        reader = read_json if file.lower().endswith(".json") else read_yaml
        tree = reader(text, file, reading.problems)
    except Unreadable as error:
        return None, [*reading.problems, _of_policies(error.problem)]
    document = _Document(reading, Letters(text, file)).read(tree)
    return document, sorted(reading.problems, key=lambda problem: problem.location)


def _of_policies(problem: Problem) -> Problem:
    """A problem of any file, its advice in the words of policies."""
    if problem.code != "too_large":
        return problem
    hint = f"a document holds at most {MAX_POLICIES} policies; split it by tenant or graph"
    return msgspec.structs.replace(problem, hint=hint)


class _Document:
    """One reading of a document."""

    def __init__(self, reading: Reading, letters: Letters) -> None:
        self.reading, self.letters = reading, letters
        self.names: dict[str, Location] = {}

    def read(self, tree: Tree) -> PolicyDocument | None:
        """The document, as far as it was understood; None: there is none to speak of."""
        reading = self.reading
        if not isinstance(tree.value, dict):
            reading.wrong_type(tree, "the file", "a map with the keys version and policies")
            return None
        given = self.meant(tree, DOCUMENT_KEYS, "a policy document")
        for key in ("version", "policies"):
            if key not in given:
                hint = f"add `{key}`: {DOCUMENT_KEYS[key]}"
                reading.say(tree.at, "missing_key", f"a policy document needs the key `{key}`", hint)
        if (version := given.get("version")) is not None:
            self.version(version)
        owner: dict[str, Any] = {}
        for key, kind in (("tenant", TENANTS), ("graph", GRAPHS)):
            if key in given and (value := kind.read(given[key], key, reading)) is not BROKEN:
                owner[key] = value
        policies = self.policies(given["policies"]) if "policies" in given else ()
        return PolicyDocument(policies=policies, **owner)

    def meant(self, tree: Tree, known: Mapping[str, Any], what: str) -> dict[str, Tree]:
        """The parts of a map under the keys that were meant, unknown ones reported: one slip hides no other problem."""
        assert isinstance(tree.value, dict)  # noqa: S101 - the caller has looked
        given = {key: part for key, part in tree.value.items() if key in known}
        for key in [key for key in tree.value if key not in known]:
            near = self.reading.unknown_key(key, tree.keys[key], known, what)
            if near:
                given.setdefault(near, tree.value[key])
        return given

    def version(self, tree: Tree) -> None:
        if tree.value != FORMAT_VERSION or type(tree.value) is not int:
            message = f"this is version {shown(str(tree.value))} of the policy format, and only 1 is known"
            self.reading.say(tree.at, "format_version", message, "write `version: 1`, or use a newer Tickwork")

    def policies(self, tree: Tree) -> tuple[Policy, ...]:
        if not isinstance(tree.value, list):
            self.reading.wrong_type(tree, "policies", "a list")
            return ()
        if not tree.value:
            hint = "write one, or remove the file"
            self.reading.say(tree.at, "no_policies", "the list of policies is empty: nothing would be guarded", hint)
        if len(tree.value) > MAX_POLICIES:
            message = f"the document has {len(tree.value)} policies; at most {MAX_POLICIES} are allowed"
            hint = "split it by tenant or graph, or let one policy match several names"
            self.reading.say(tree.value[MAX_POLICIES].at, "too_many", message, hint)
        # Nobody needs the problems of ten thousand; that there are too many is reported.
        read = [self.policy(part, index) for index, part in enumerate(tree.value[:MAX_POLICIES])]
        found: list[Policy] = []
        for values in read:
            if values is not None and "name" not in values:
                values["name"] = name_of(values["when"], self.names)
                self.names[values["name"]] = tree.at
            if values is not None:
                found.append(Policy(**values))
        return tuple(found)

    def policy(self, tree: Tree, index: int) -> dict[str, Any] | None:
        """The fields of a policy, of a short one without its name; None: they cannot make one, which is reported."""
        path, reading = f"policies.{index}", self.reading
        if isinstance(tree.value, str):
            return self.short(tree, path)
        if not isinstance(tree.value, dict):
            reading.wrong_type(tree, "policies", "a list of maps, or of texts `condition -> action`")
            return None
        given = self.meant(tree, POLICY.table(), "a policy")
        values = POLICY.values(Tree(given, tree.at, tree.keys), path, reading)
        for field in POLICY.fields:
            if field.required and field.name not in given:
                hint = f"add `{field.name}`: {field.about}"
                reading.say(tree.at, "missing_key", f"a policy needs the key `{field.name}`", hint)
        if "name" in values:
            self.named(values["name"], given["name"].at)
        self.window(given, values)
        if "when" in values and not self.broken(given, values, "engine", "scope"):
            values["when"] = self.condition(given["when"], None, values, given.get("engine"))
        return values if all(field.name in values for field in POLICY.fields if field.required) else None

    @staticmethod
    def broken(given: dict[str, Tree], values: dict[str, Any], *keys: str) -> bool:
        """Whether one of these was given and could not be understood."""
        defaults = {"engine": "cel", "scope": "lifetime"}
        return any(key in given and key not in values and given[key].value != defaults[key] for key in keys)

    def named(self, name: str, at: Location) -> None:
        if name in self.names:
            message = f"there are two policies called `{name}`"
            hint = f"the first one stands on line {self.names[name].line}; rename one of them, or take one out"
            self.reading.say(at, "duplicate_name", message, hint, name)
        self.names.setdefault(name, at)

    def window(self, given: dict[str, Tree], values: dict[str, Any]) -> None:
        if "window" in given and values.get("scope") != "tenant" and not self.broken(given, values, "scope"):
            scope = values.get("scope", "lifetime")
            message = f"a policy of the scope {scope} has no window: it adds up one {scope}, from its start"
            hint = "write `scope: tenant`, or leave `window` out"
            self.reading.say(given["window"].at, "window_without_tenant", message, hint, values.get("name", ""))

    def short(self, tree: Tree, path: str) -> dict[str, Any] | None:
        """A whole policy in one line."""
        text = str(tree.value)
        begin = text.rfind(ARROW)
        if begin < 0 or not text[:begin].strip():
            self.reading.say(tree.at, "bad_policy", f"`{shown(text)}` is not a policy", _SHORT)
            return None
        if not text_is_fine(tree, f"{path}.policy", MAX_LENGTH, self.reading):
            return None
        word = text[begin + len(ARROW) :]
        at = self.letters.place(tree.at, text, begin + len(ARROW) + len(word) - len(word.lstrip()))
        values: dict[str, Any] = {}
        action = ACTION.read(Tree(word.strip(), at), f"{path}.action", self.reading)
        values["when"] = self.condition(tree, begin, values, None)
        return None if action is BROKEN else {**values, "action": action}

    def condition(self, tree: Tree, end: int | None, values: dict[str, Any], named: Tree | None) -> str:
        """The condition that a text begins with, as engines take it; its faults are reported where they stand.

        `named`: where the engine is named.
        """
        text = str(tree.value)
        engine: Engine = values.get("engine", "cel")
        scope: Scope = values.get("scope", "lifetime")
        written = condition(text, 0, len(text) if end is None else end, engine)
        subject = values.get("name", "")
        try:
            compile_expression(engine, written.text, scope)
        except MissingExtra as error:
            at = (named or tree).at
            self.reading.say(at, "missing_extra", str(error), "or write the condition in CEL", subject)
        except ConditionError as error:
            origin = written.origin(error.line, error.column)
            at = tree.at if origin is None else self.letters.place(tree.at, text, origin)
            hint = written.strange() or _EXAMPLES[engine]
            self.reading.say(at, "bad_condition", f"the condition does not compile: {error}", hint, subject)
        return written.text
