"""Tickwork runs AgentGraphs: Tasks do the work, Plans decide what is next, and every step is a record."""

from __future__ import annotations

__version__ = "0.1.0"
