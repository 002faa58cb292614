"""What the documentation shows has to work: code runs, graphs are valid, commands and flags exist, links lead."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tickwork.formats import read_graph
from tickwork.formats.policies import read_policies

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("README.md")),
]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SUFFIX = {"yaml": ".yaml", "dot": ".dot", "mermaid": ".mmd", "json": ".json"}


def blocks(*kinds: str) -> list[object]:
    """The fenced blocks of these kinds in all pages, each named by page and number."""
    found = []
    for page in PAGES:
        for number, match in enumerate(FENCE.finditer(page.read_text()), 1):
            if match[1] in kinds:
                name = f"{page.relative_to(ROOT)}:{number}"
                found.append(pytest.param(match[1], match[2], id=name))
    return found


@pytest.mark.parametrize(("kind", "code"), [b for b in blocks("python") if "CONTRIBUTING" not in str(b)])
def test_python_runs(kind: str, code: str, tmp_path: Path) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("kind", "text"), [b for b in blocks(*SUFFIX) if "formats.md" in str(b)])
def test_graphs_are_valid(kind: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / f"graph{SUFFIX[kind]}"
    path.write_text(text)
    assert read_graph(path).problems == []


def policies() -> list[object]:
    """The YAML blocks in all pages that are policy documents."""
    return [block for block in blocks("yaml") if "\npolicies:" in block.values[1]]  # type: ignore[attr-defined]  # a pytest.param


@pytest.mark.parametrize(("kind", "text"), policies())
def test_policies_are_valid(kind: str, text: str) -> None:
    assert read_policies(text).policies


def commands() -> list[str]:
    """Every `tickwork ...` line that a page shows behind a `$`."""
    lines = [line for page in PAGES for line in re.findall(r"^\s*\$ (tickwork .*)$", page.read_text(), re.MULTILINE)]
    return sorted(set(lines))


def test_commands_and_flags_exist() -> None:
    helps: dict[tuple[str, ...], str] = {}
    assert len(commands()) > 10
    for line in commands():
        words = line.partition(" #")[0].split()[1:]
        names = tuple(w for w in words if re.fullmatch(r"[a-z][a-z-]*", w))
        path = names[:2] if names[:1] in {("graph",), ("lifetimes",), ("guardrails",), ("db",)} else names[:1]
        if path not in helps:
            done = subprocess.run(
                [sys.executable, "-m", "tickwork", *path, "--help"], capture_output=True, text=True, check=False,
                env={"COLUMNS": "200", "PATH": ""},
            )  # fmt: skip
            assert done.returncode == 0, f"{line}: {done.stderr}"
            helps[path] = done.stdout
        for flag in re.findall(r"(?<=\s)--[a-z][a-z-]*", line):
            assert flag in helps[path] or flag in ("--help", "--version"), f"{line}: no {flag}"


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
