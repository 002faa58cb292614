"""What is wrong with something a person wrote, and where."""

from __future__ import annotations

import msgspec


class Location(msgspec.Struct, frozen=True, order=True):
    """A place in a source: `file` as the user named it, `line` and `column` from 1 (0: unknown)."""

    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.file
        return f"{self.file}:{self.line}:{self.column}" if self.column else f"{self.file}:{self.line}"


class Problem(msgspec.Struct, frozen=True, order=True):
    """One problem: its place, a stable `code` for machines, what is wrong, and how to mend it."""

    location: Location
    code: str
    message: str
    hint: str = ""
    subject: str = ""
    """The node or edge it is about: `refine`, `plan -> task`; empty for the graph as a whole."""

    def __str__(self) -> str:
        place = f"{self.location}: " if str(self.location) else ""
        return f"{place}{self.message}" + (f"\n    {self.hint}" if self.hint else "")
