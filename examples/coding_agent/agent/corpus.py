"""Retrieval: a full-text index (SQLite FTS5, in memory) over the Markdown files in `corpus/`.

The index is made on first use and kept for the process; the corpus is a dozen files of a few lines.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from functools import cache
from pathlib import Path

CORPUS = Path(__file__).resolve().parents[1] / "corpus"
NOISE = re.compile(
    r"\b(a|an|and|are|as|at|be|by|called|code|def|else|false|for|from|function|give|given|how|i|if|in|is|it|its|me|named|of|"
    r"on|or|please|python|return|returns|so|string|that|the|this|to|true|want|which|with|write)\b"
)

lock = threading.Lock()


def query_for(text, most=12):
    """The words of a text that say something, each once, in order: `is_even: True if n is even` -> `even n`."""
    words = re.findall(r"[a-z0-9]+", NOISE.sub(" ", text.lower().replace("_", " ")))
    return " ".join(list(dict.fromkeys(words))[:most])


@cache
def index():
    """The corpus as an FTS5 table; one connection, guarded by `lock`."""
    database = sqlite3.connect(":memory:", check_same_thread=False)
    database.execute("create virtual table passage using fts5(source unindexed, title, body, tokenize='porter')")
    for file in sorted(CORPUS.glob("*.md")):
        title, _, body = file.read_text(encoding="utf-8").partition("\n")
        row = (file.name, title.lstrip("# "), body.strip())
        database.execute("insert into passage values (?, ?, ?)", row)
    return database


def search(query, limit=2):
    """The passages that fit a query best, best first: source, title, text, score (the higher, the better)."""
    words = " OR ".join(f'"{word}"' for word in query.split())
    if not words:
        return []
    with lock:
        rows = index().execute(
            "select source, title, body, round(-bm25(passage, 0, 4, 1), 3) as score from passage"
            " where passage match ? order by score desc, source limit ?",
            (words, limit),
        )
        return [dict(zip(("source", "title", "text", "score"), row, strict=True)) for row in rows]
