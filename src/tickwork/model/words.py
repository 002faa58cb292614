"""Words of somebody else's in our messages: shown without harm, and compared with the known ones."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that cannot be shown; line breaks and tabs can."""


def shown(text: str) -> str:
    """A word of somebody else's, fit for a message: cut, and without control characters."""
    text = text if len(text) <= 80 else text[:77] + "..."
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text).replace("\n", "\\n")


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name that `word` was probably meant to be, or the empty string."""
    if not word or len(word) > 128:
        return ""
    names = {name.lower(): name for name in known}
    found = names.get(word.lower()) or next(iter(difflib.get_close_matches(word.lower(), names, 1, 0.6)), "")
    return names.get(found, found)
