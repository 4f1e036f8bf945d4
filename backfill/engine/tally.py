"""The counts of S4.3 for many readers side by side, kept up with each change."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

from backfill.engine.codes import Share

_ITEM_SIZE: Final = array("i").itemsize

#: n, left, k, f, x: in the order of `Share`.
Counts = tuple[int, int, int, int, int]


class Tally:
    """Five columns with a position for each reader; `left` counts the unfinished, so that s = n - left - k - f."""

    __slots__ = ("f", "k", "left", "n", "x")

    def __init__(self, n: Sequence[int]) -> None:
        """Make a tally of positions at which `n` task instances count, all of them unfinished."""
        nothing = bytes(_ITEM_SIZE * len(n))
        self.n = array("i", n)
        self.left = list(n)  # changes most often, and a list is faster
        self.k = array("i", nothing)
        self.f = array("i", nothing)
        self.x = array("i", nothing)

    def add(self, position: int, change: Share) -> None:
        """Count a change of one task instance at `position`."""
        n, left, k, f, x = change
        self.n[position] += n
        self.left[position] += left
        self.k[position] += k
        self.f[position] += f
        self.x[position] += x

    def add_end(self, position: int, share: Share) -> None:
        """Count how something ended that is taken off `left` already."""
        self.k[position] += share.k
        self.f[position] += share.f
        self.x[position] += share.x

    def at(self, position: int) -> Counts:
        """Return the counts at `position`."""
        return self.n[position], self.left[position], self.k[position], self.f[position], self.x[position]
