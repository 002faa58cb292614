"""Where something stands in a condition, and which characters it may hold: the same for every engine."""

from __future__ import annotations

import unicodedata

from tickwork.model.condition import MAX_LENGTH, ConditionError


def place(text: str, offset: int) -> tuple[int, int]:
    """Line and column, from 1, of an offset."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def refuse(text: str, offset: int, message: str) -> ConditionError:
    """The error with its place."""
    return ConditionError(message, *place(text, offset))


def check_text(text: str) -> None:
    """Refuses what no engine should see: too long, empty, or with characters that cannot be seen. ConditionError."""
    if len(text) > MAX_LENGTH:
        raise ConditionError(f"the condition has {len(text)} characters; at most {MAX_LENGTH} are allowed", 1, 1)
    if not text.strip():
        raise ConditionError("the condition is empty", 1, 1)
    for offset, sign in enumerate(text):
        if sign not in "\t\r\n" and unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
            name = unicodedata.name(sign, "a control character")
            raise refuse(text, offset, f"U+{ord(sign):04X} {name} cannot be seen; remove it")


_LOOK_ALIKE = dict(
    zip(
        "\u0430\u0410\u0412\u0441\u0421\u0435\u0415\u041d\u0456\u0406\u0458\u0408\u041a\u041c\u043e\u041e\u0440\u0420\u0455\u0405\u0422\u0445\u0425\u0443\u0423\u0501\u051b\u051d\u03b1\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u03bf\u039f\u03a1\u03c1\u03a4\u03a5\u03a7\u03bd\u00df\u0131\u0261\u217c",
        "aABcCeEHiIjJKMoOpPsSTxXyYdqwaABEZHIKMNoOPpTYXvBigl",
        strict=True,
    )
)
_SIGNS = {
    "\u201c": '"',
    "\u201d": '"',
    "\u201e": '"',
    "\u2018": "'",
    "\u2019": "'",
    "\u201a": "'",
    "\u00ab": '"',
    "\u00bb": '"',
    "\u2212": "-",
    "\u2013": "-",
    "\u2014": "-",
    "\u2265": ">=",
    "\u2264": "<=",
    "\u2260": "!=",
    "\u00d7": "*",
    "\u00f7": "/",
    "\u2227": "&&",
    "\u2228": "||",
    "\u00ac": "!",
    "\u2026": "...",
}  # fmt: skip


def look_alike(sign: str) -> str:
    """What to say of a character that may stand in texts alone: its name, and what it looks like."""
    name = unicodedata.name(sign, "an unnamed character")
    said = f"U+{ord(sign):04X} {name}"
    folded = unicodedata.normalize("NFKC", sign)
    likely = _LOOK_ALIKE.get(sign) or _SIGNS.get(sign) or (folded if folded.isascii() and folded.isprintable() else "")
    if likely.strip():
        return f"{said} looks like `{likely}` but is another character: type `{likely}` anew"
    return f"{said} may stand only inside a text in quotes"
