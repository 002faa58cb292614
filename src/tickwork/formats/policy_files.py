"""Policies that lie in files: read again when a file has changed, so that a reload needs no restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwork.errors import UsageError
from tickwork.formats.policies import find_policies, load_policies

if TYPE_CHECKING:
    from pathlib import Path

    from tickwork.model.policy import PolicyDocument


class PolicyFiles:
    """The documents of a file, or of all files of a folder. `required`: it has to be there."""

    def __init__(self, path: Path, *, required: bool = False) -> None:
        self._path, self._required = path, required
        self._seen: list[tuple[str, int, int]] | None = None
        self._documents: list[PolicyDocument] = []

    def __call__(self) -> list[PolicyDocument]:
        """The documents as they are now. Raises PolicyInvalid with all problems; UsageError when nothing is there."""
        try:
            seen = self._stamps()
        except OSError as error:
            raise UsageError(f"policies cannot be read from {self._path}: {error.strerror}") from None
        if seen != self._seen:
            if self._path.is_dir():
                self._documents = [document for _, document in find_policies(self._path)]
            else:
                self._documents = [load_policies(self._path)] if seen else []
            self._seen = seen
        return self._documents

    def _stamps(self) -> list[tuple[str, int, int]]:
        """Names, times of change (ns) and sizes: what changes when a file does."""
        if not self._path.exists():
            if self._required:
                raise UsageError(f"TICKWORK_POLICIES names {self._path}, and there is no such file or folder")
            return []
        files = sorted(self._path.iterdir()) if self._path.is_dir() else [self._path]
        return [(file.name, (found := file.stat()).st_mtime_ns, found.st_size) for file in files]
