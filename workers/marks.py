"""Which attempt each child of a worker is at, in memory that children share with their main process: what is left of one that died.

So it is known which of several attempts that a child held was the one that it died in (S8.3).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable

#: A child's place is found by its process id. Two living children whose ids differ by a multiple of this share one; then neither
#: may be found, which costs nothing but that nobody is blamed.
_PLACES = 4096
_SIZE = 16
_NOBODY = bytes(_SIZE)


class Marks:
    """Made by the main process; children get it by fork."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _PLACES * _SIZE)

    def mark(self, attempt_id: str | None) -> None:
        """Say that this process is at that attempt from now on, or at none."""
        place = os.getpid() % _PLACES * _SIZE
        self._memory[place : place + _SIZE] = _NOBODY if attempt_id is None else _bytes(attempt_id)

    def marked(self, attempt_ids: Iterable[str]) -> set[str]:
        """Return those of `attempt_ids` that some process is at, or died in."""
        return {attempt_id for attempt_id in attempt_ids if self._is_marked(_bytes(attempt_id))}

    def _is_marked(self, mark: bytes) -> bool:
        found = self._memory.find(mark)
        while found >= 0 and found % _SIZE:
            found = self._memory.find(mark, found + 1)
        return found >= 0


def _bytes(attempt_id: str) -> bytes:
    return bytes.fromhex(attempt_id.replace("-", ""))
