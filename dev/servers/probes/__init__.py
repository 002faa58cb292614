"""Just enough of each server's protocol to know that it works, on sockets of the standard library."""

from __future__ import annotations


class NotReady(Exception):
    """A server does not answer as it should, yet: asked again until its time is over."""
