"""The counts of S4.3 for many readers side by side, kept up with each change."""

from __future__ import annotations

from collections.abc import Sequence

from backfill.engine.codes import Share


class Tally:
    """Five lists with a position for each reader; `left` counts the unfinished, so that s = n - left - k - f."""

    __slots__ = ("f", "k", "left", "n", "x")

    def __init__(self, n: Sequence[int]) -> None:
        """Make a tally of positions at which `n` task instances count, all of them unfinished."""
        self.n = list(n)
        self.left = list(n)
        self.k = [0] * len(self.n)
        self.f = [0] * len(self.n)
        self.x = [0] * len(self.n)

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

    def at(self, position: int) -> Share:
        """Return the counts at `position`."""
        return Share(self.n[position], self.left[position], self.k[position], self.f[position], self.x[position])
