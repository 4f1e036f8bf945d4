"""Task instance states as small integers, so that one comparison tells idle, in flight and finished apart.

`code < QUEUED` is idle, `code < SUCCESS` unfinished, `SUCCESS <= code < REMOVED` ended, and `REMOVED` counts for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from backfill.states import TaskInstanceState

NONE: Final = 0
SCHEDULED: Final = 1
UP_FOR_RETRY: Final = 2
UP_FOR_RESCHEDULE: Final = 3
QUEUED: Final = 4
RUNNING: Final = 5
SUCCESS: Final = 6
SKIPPED: Final = 7
FAILED: Final = 8
UPSTREAM_FAILED: Final = 9
REMOVED: Final = 10

#: The state of each code.
WORDS: Final[tuple[TaskInstanceState, ...]] = (
    TaskInstanceState.NONE,
    TaskInstanceState.SCHEDULED,
    TaskInstanceState.UP_FOR_RETRY,
    TaskInstanceState.UP_FOR_RESCHEDULE,
    TaskInstanceState.QUEUED,
    TaskInstanceState.RUNNING,
    TaskInstanceState.SUCCESS,
    TaskInstanceState.SKIPPED,
    TaskInstanceState.FAILED,
    TaskInstanceState.UPSTREAM_FAILED,
    TaskInstanceState.REMOVED,
)

#: The code of each state, by the state or by its plain word as the database returns it.
CODES: Final[Mapping[str, int]] = MappingProxyType({str(word): code for code, word in enumerate(WORDS)})


class Share(NamedTuple):
    """What one task instance adds to the counts of S4.3 for whatever depends on it."""

    n: int
    left: int
    k: int
    f: int
    x: int


_UNFINISHED: Final = Share(n=1, left=1, k=0, f=0, x=0)
_SHARES: Final = {
    SUCCESS: Share(n=1, left=0, k=0, f=0, x=0),
    SKIPPED: Share(n=1, left=0, k=1, f=0, x=0),
    FAILED: Share(n=1, left=0, k=0, f=1, x=1),
    UPSTREAM_FAILED: Share(n=1, left=0, k=0, f=1, x=0),
    REMOVED: Share(n=0, left=0, k=0, f=0, x=0),
}

#: What a task instance adds, by its code.
SHARES: Final[tuple[Share, ...]] = tuple(_SHARES.get(code, _UNFINISHED) for code in range(len(WORDS)))

#: How the counts change with a change of state, by old and new code.
CHANGES: Final[tuple[tuple[Share, ...], ...]] = tuple(
    tuple(Share(*(after - before for before, after in zip(old, new, strict=True))) for new in SHARES) for old in SHARES
)


def ended_badly(code: int) -> bool:
    """Return whether `code` is `failed` or `upstream_failed`."""
    return code in {FAILED, UPSTREAM_FAILED}
