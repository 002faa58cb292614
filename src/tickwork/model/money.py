"""Amounts of US dollars as people and code write them, brought to the one form that is stored and compared.

Money is a decimal text, never a float: `0.05`, `"0.05"` and `"0.050"` are the same amount and give the same digest.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from tickwork.model.words import shown

MAX_USD = 1_000_000
"""Most dollars that one attempt may declare: so that even many reservations add up within 64 bits of billionths."""

MAX_TOKENS = 1_000_000_000
"""Most tokens that one attempt may declare."""

DECIMALS = 9
_LONGEST = 32
_AMOUNT = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def dollars(value: Any) -> str:
    """The canonical text of an amount: no sign, no exponent, no idle zeros. A float counts as what it prints.

    Raises ValueError, which says what is wrong with it: no number, negative, above MAX_USD, too many decimals.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError(f"has to be an amount of US dollars, not {type(value).__name__}")
    if isinstance(value, str) and not (len(value) <= _LONGEST and _AMOUNT.fullmatch(value)):
        raise ValueError(f'has to be an amount of US dollars, not "{shown(value)}"')
    amount = Decimal(str(value) if isinstance(value, float) else value)
    said = str(amount) if len(str(amount)) <= _LONGEST else f"{amount:.6g}"
    if not amount.is_finite() or not 0 <= amount <= MAX_USD:
        raise ValueError(f"is {said}; it has to be at least 0 and at most {MAX_USD} (in US dollars)")
    if amount != amount.quantize(Decimal(1).scaleb(-DECIMALS)):
        raise ValueError(f"is {said}; it may have at most {DECIMALS} digits after the point")
    plain = f"{amount:f}"
    return (plain.rstrip("0").rstrip(".") if "." in plain else plain).lstrip("-") or "0"
