"""What can go wrong for whoever runs `dev/services`: one error, whose message says what to do next."""

from __future__ import annotations


class ServiceError(Exception):
    """A server cannot be had; the message says why, and what to do next. Printed without a traceback."""
