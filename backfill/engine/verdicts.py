"""What a question of S4.1 answers for an idle task instance."""

from __future__ import annotations

from enum import Enum, auto


class Verdict(Enum):
    """The answer of one line of S4.1, or of all of them."""

    #: Ask the next line; after the last one: ready.
    PASS = auto()
    #: Not yet.
    WAIT = auto()
    #: Not yet, and never unless somebody intervenes: what it waits for ended badly or is driven by nobody (S9.3 a).
    HELD = auto()
    #: Settle as `skipped`.
    SKIP = auto()
    #: Settle as `upstream_failed`.
    FAIL = auto()
    #: Look up the length of its mapping first (S4.7).
    EXPAND = auto()
