"""The statistics of the benchmarks: few samples, so medians and whole ranges, never means."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def median(samples: Sequence[float]) -> float:
    """Return the median; `ValueError` without samples."""
    if not samples:
        raise ValueError("there are no samples to take the median of")
    return statistics.median(samples)


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the smallest sample that at least `share` (0 to 1) of all samples do not exceed; `ValueError` without samples.

    The nearest-rank definition: always a value that was measured, also with few samples.
    """
    if not samples:
        raise ValueError("there are no samples to take a percentile of")
    if not 0 <= share <= 1:
        raise ValueError(f"a share is between 0 and 1, not {share}")
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return ours by theirs, pair by pair, as they were measured one after the other (A B A B).

    A drift of the machine's speed so hits both sides of each ratio. `ValueError` if one side was measured more often.
    """
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def spread(samples: Sequence[float]) -> tuple[float, float]:
    """Return the smallest and the largest sample; `ValueError` without samples."""
    if not samples:
        raise ValueError("there are no samples to take the spread of")
    return min(samples), max(samples)
