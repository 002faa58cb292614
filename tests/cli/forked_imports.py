"""What the process imports from which commands are forked: all of the command line, and the engine behind it."""

from __future__ import annotations

import importlib

from tickwork.cli.main import COMMANDS

ENGINE = ("tickwork.adapters.state.sqlite", "tickwork.history", "tickwork.runtime")

for name in (*ENGINE, *(target.partition(":")[0] for _, _, target, _ in COMMANDS)):
    importlib.import_module(name)
