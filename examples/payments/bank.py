"""A stand-in for a bank. It does what it is told each time it is told: asked twice, it pays twice."""

from __future__ import annotations

import json
import os
from pathlib import Path


def ledger() -> Path:
    """The file that stands for the bank's books: $BANK_LEDGER, else `bank.jsonl` here."""
    return Path(os.environ.get("BANK_LEDGER", "bank.jsonl"))


def transfer(reference, to, amount):
    """Pays. The reference is what the transfer can be found by afterwards."""
    booked = {"reference": reference, "to": to, "amount": amount}
    with ledger().open("a", encoding="utf-8") as books:
        books.write(json.dumps(booked) + "\n")
        books.flush()
        os.fsync(books.fileno())
    return booked


def find(reference):
    """All transfers with this reference."""
    if not ledger().exists():
        return []
    booked = [json.loads(line) for line in ledger().read_text(encoding="utf-8").splitlines()]
    return [one for one in booked if one["reference"] == reference]
