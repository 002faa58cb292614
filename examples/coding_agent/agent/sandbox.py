"""Runs in a process of its own: a function that a model wrote, then its test. Reads {code, test} as JSON on stdin.

Writes one JSON line, {passed, output}, to the stdout that it was started with; whatever the code prints goes elsewhere.
The limits stop honest mistakes (endless loops, endless lists, full disks). They are no wall against malice.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import resource
import sys
import traceback

CPU_SECONDS = 2
MEMORY = 256 * 1024 * 1024
FILE_SIZE = 1024 * 1024


def judge(code, test):
    """Whether the test holds, and if not, what went wrong, in a few lines that a model can read."""
    world = {"__name__": "generated"}
    try:
        exec(compile(code, "function", "exec"), world)
        exec(compile(test, "test", "exec"), world)
    except AssertionError as error:
        return {"passed": False, "output": f"the test failed: {error}" if str(error) else returned(test, world)}
    except BaseException as error:  # noqa: BLE001 - generated code may raise anything, SystemExit too
        return {"passed": False, "output": "".join(traceback.format_exception_only(error)).strip()[-500:]}
    return {"passed": True, "output": f"the test passed: {test}"}


def returned(test, world):
    """What the calls in a failed test gave: says more than that the test failed."""
    calls = [node for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Call)]
    told = []
    with contextlib.suppress(Exception):
        told = [f"{(text := ast.unparse(call))} gave {eval(text, world)!r}"[:200] for call in calls[:4]]
    return f"the test failed: {test}" + "".join(f"\n{line}" for line in told)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
    work = json.load(sys.stdin)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        verdict = judge(work["code"], work["test"])
    print(json.dumps(verdict), flush=True)
    os._exit(0)  # nothing that the code registered or started may run after the verdict
