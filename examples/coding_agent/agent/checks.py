"""Generated code: taken out of the model's reply, and run with its test in a limited process."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SANDBOX = Path(__file__).with_name("sandbox.py")
SECONDS = 8
FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def code_in(reply, name):
    """The code in a reply that defines the function `name`; empty when there is none.

    Only imports, functions, classes and constants are kept: a model likes to add examples that print or ask for input.
    """
    for block in FENCE.findall(reply) or [fenced(reply)]:
        tree = parsed(block)
        if tree and any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body):
            keep = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign)
            return "\n\n".join(ast.unparse(node) for node in tree.body if isinstance(node, keep))
    return ""


def fenced(reply):
    """The first code block of a reply, or what follows its first `def` when it has no fences."""
    found = FENCE.search(reply)
    return found.group(1) if found else reply[reply.find("def ") :] if "def " in reply else ""


def parsed(block):
    """The longest beginning of a block that is Python: a reply may be cut off, or go on in prose."""
    lines = block.rstrip().splitlines()
    while lines:
        try:
            return ast.parse("\n".join(lines))
        except (SyntaxError, ValueError):
            lines.pop()
    return None


def run_test(code, test):
    """{passed, output} of a test on some code. Never raises for what the code does."""
    if not code:
        return {"passed": False, "output": "the reply held no function of that name"}
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-B", str(SANDBOX)],
                input=json.dumps({"code": code, "test": test}),
                capture_output=True,
                text=True,
                timeout=SECONDS,
                cwd=folder,
                env={},
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"passed": False, "output": f"the code did not end within {SECONDS} seconds"}
    try:
        return json.loads(done.stdout)
    except ValueError:
        return {"passed": False, "output": f"the code ended its process (exit {done.returncode})"}
