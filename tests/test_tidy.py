"""Style that no linter knows, as a test: sizes, names, reasons on exclusions, and what must never enter the repository.

Each rule reads one file and yields its findings. Beside each rule stands a planted fault that it must find, so that a
rule which has gone blind fails too.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 70

# Words that say nothing about what a thing is. The linter has no rule for them.
EMPTY_NAMES = {"manager", "managers", "helper", "helpers", "util", "utils", "common", "base"}

# Unpickling runs code; multiprocessing pickles what it sends.
UNSAFE_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "multiprocessing"}
UNSAFE_CALLS = {"eval", "exec", "__import__"}

# Joined here, so that this file does not hold them itself.
UNFINISHED = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r")\b")
REGISTRY_HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("repo1", "maven", "org"),
        ("repo", "maven", "apache", "org"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
        ("deb", "debian", "org"),
    )
]

# `noqa: RULE - why` and `type: ignore[rule]  # why`; mypy takes nothing but a comment after its bracket.
NOQA = re.compile(r"#\s*(?:ruff:\s*)?noqa\b", re.IGNORECASE)
NOQA_WITH_REASON = re.compile(r"noqa:\s*[A-Z]+[0-9]+(?:,\s*[A-Z]+[0-9]+)*\s+-\s+\S+\s+\S+")
TYPE_IGNORE = re.compile(r"#\s*type:\s*ignore|#\s*mypy:")
TYPE_IGNORE_WITH_REASON = re.compile(r"type:\s*ignore\[[a-z0-9-]+(?:,\s*[a-z0-9-]+)*\]\s+#\s+\S+\s+\S+")


def too_long_file(_path: Path, source: str) -> Iterator[str]:
    lines = source.count("\n")
    if lines > MAX_FILE_LINES:
        yield f"1: {lines} lines; split the file, {MAX_FILE_LINES} is the limit"


def too_long_function(_path: Path, source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield f"{node.lineno}: {node.name} has {lines} lines; {MAX_FUNCTION_LINES} is the limit"


def no_module_docstring(_path: Path, source: str) -> Iterator[str]:
    if not ast.get_docstring(ast.parse(source)):
        yield "1: say in a module docstring what this file is for"


def empty_name(path: Path, source: str) -> Iterator[str]:
    for part in path.with_suffix("").parts:
        if EMPTY_NAMES & set(part.lower().split("_")):
            yield f"1: the path's {part!r} does not say what is in it"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            words = {word.lower() for word in re.findall(r"[A-Z][a-z0-9]*", node.name)}
            if EMPTY_NAMES & words:
                yield f"{node.lineno}: the class name {node.name} does not say what it is"


def exclusion_without_reason(_path: Path, source: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if NOQA.search(token.string) and not NOQA_WITH_REASON.search(token.string):
            yield f"{token.start[0]}: write `noqa: RULE - the reason`"
        if TYPE_IGNORE.search(token.string) and not TYPE_IGNORE_WITH_REASON.search(token.string):
            yield f"{token.start[0]}: write `type: ignore[rule]  # the reason`"


def unsafe_code(_path: Path, source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            from_module = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in from_module or [alias.name for alias in node.names]:
                if name.split(".")[0] in UNSAFE_MODULES:
                    yield f"{node.lineno}: imports {name}; nothing is ever pickled here"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in UNSAFE_CALLS:
            yield f"{node.lineno}: calls {node.func.id}"


def facade_used_inside(_path: Path, source: str) -> Iterator[str]:
    """The package's facade re-exports from above; whoever imports it from inside turns the layers upside down."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            if any(alias.name == "tickwork" for alias in node.names):
                yield f"{node.lineno}: import the module that you need, not the package's facade"
        elif isinstance(node, ast.ImportFrom) and node.module == "tickwork" and not node.level:
            for alias in node.names:
                here = ROOT / "src/tickwork" / alias.name
                if alias.name != "__version__" and not here.is_dir() and not here.with_suffix(".py").is_file():
                    yield f"{node.lineno}: import {alias.name} from the module that defines it"


def unfinished(_path: Path, source: str) -> Iterator[str]:
    for number, line in enumerate(source.splitlines(), 1):
        if UNFINISHED.search(line):
            yield f"{number}: finish it, or write it down where work is planned"


def registry_host(_path: Path, source: str) -> Iterator[str]:
    for number, line in enumerate(source.splitlines(), 1):
        for host in REGISTRY_HOSTS:
            if host in line.lower():
                yield f"{number}: names {host}; where packages come from is the machine's business"


@dataclass(frozen=True)
class Rule:
    """A check, the files that it reads, and a file that breaks it."""

    check: Callable[[Path, str], Iterator[str]]
    where: tuple[str, ...]
    suffixes: tuple[str, ...]
    planted: str
    planted_path: str = "src/tickwork/planted.py"


SRC = ("src/",)
OUR_PYTHON = ("src/", "tests/", "benchmarks/", "examples/")
EVERYWHERE = ("",)
PY = (".py",)
ANY: tuple[str, ...] = ("",)

RULES = [
    Rule(too_long_file, SRC, PY, "x = 1\n" * (MAX_FILE_LINES + 1)),
    Rule(too_long_function, SRC, PY, "async def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES),
    Rule(no_module_docstring, SRC, PY, "x = 1\n"),
    Rule(empty_name, SRC, PY, "x = 1\n", "src/tickwork/cli/table_helpers.py"),
    Rule(empty_name, SRC, PY, "class LifetimeManager:\n    pass\n"),
    Rule(exclusion_without_reason, OUR_PYTHON, PY, "x = 1  # noqa\n"),
    Rule(exclusion_without_reason, OUR_PYTHON, PY, "x = 1  # noqa: BLE001\n"),
    Rule(exclusion_without_reason, OUR_PYTHON, PY, "x = 1  # type: ignore\n"),
    Rule(exclusion_without_reason, OUR_PYTHON, PY, "x = 1  # type: ignore[assignment]\n"),
    Rule(unsafe_code, SRC, PY, "from pickle import loads\n"),
    Rule(unsafe_code, SRC, PY, "import multiprocessing.pool\n"),
    Rule(unsafe_code, SRC, PY, "eval('1')\n"),
    Rule(facade_used_inside, SRC, PY, "from tickwork import run\n"),
    Rule(facade_used_inside, SRC, PY, "def f():\n    import tickwork\n"),
    Rule(unfinished, OUR_PYTHON, ANY, "x = 1  # " + "TO" + "DO: later\n"),
    Rule(registry_host, EVERYWHERE, ANY, f"url = 'https://{REGISTRY_HOSTS[0]}/simple'\n"),
]
CHECKS = {rule.check.__name__: rule for rule in RULES}


def files_of_the_repository() -> list[str]:
    """What git tracks, and what it would track: a new file is judged before it is committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return sorted({name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()})


def text_of(name: str) -> str | None:
    try:
        return (ROOT / name).read_bytes().decode("utf-8")
    except (UnicodeDecodeError, FileNotFoundError):
        return None  # a picture, or a file that another process has just removed


@pytest.mark.parametrize("rule", [pytest.param(rule, id=name) for name, rule in CHECKS.items()])
def test_the_tree_is_tidy(rule: Rule) -> None:
    names = [name for name in files_of_the_repository() if name.startswith(rule.where) and name.endswith(rule.suffixes)]
    assert names, "the rule looked at no file"
    findings: list[str] = []
    for name in names:
        if (source := text_of(name)) is not None:
            findings += [f"{name}:{finding}" for finding in rule.check(Path(name), source)]
    assert not findings, "\n" + "\n".join(findings)


@pytest.mark.parametrize("rule", [pytest.param(rule, id=f"{rule.check.__name__}-{i}") for i, rule in enumerate(RULES)])
def test_each_rule_finds_its_planted_fault(rule: Rule) -> None:
    assert list(rule.check(Path(rule.planted_path), rule.planted))


@pytest.mark.parametrize(
    "line",
    [
        "x = 1  # noqa: BLE001 - user code may raise anything\n",
        "x = 1  # noqa: S110, BLE001 - user code may raise anything\n",
        "x = 1  # type: ignore[assignment]  # the stub is wrong here\n",
        "x = '# noqa'\n",
    ],
)
def test_an_exclusion_with_its_reason_is_fine(line: str) -> None:
    assert not list(exclusion_without_reason(Path("src/tickwork/planted.py"), line))
