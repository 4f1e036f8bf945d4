"""One module for each measure: what is measured and how stands in its docstring, which the page repeats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

from benchmarks.ground import Ground
from benchmarks.measurement import Found, Mode
from benchmarks.measures import airflow, ceilings, idle, latency, layers, scale, slots, startup, throughput, workers


class Measure(Protocol):
    """What every module of this package has."""

    #: Its name on the command line, and of its file of results.
    KEY: str
    TITLE: str
    #: Seconds after which it is given up.
    LIMITS: Mapping[Mode, float]
    __doc__: str | None

    def measure(self, ground: Ground, mode: Mode) -> Found:
        """Take the measure."""
        ...


#: All measures by key, in the order of the table.
MEASURES: dict[str, Measure] = {
    module.KEY: cast("Measure", module)
    for module in (throughput, airflow, latency, scale, idle, startup, slots, layers, workers, ceilings)
}
