"""The command line: which measures, how large, and what becomes of the results."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from backfill.exceptions import BackfillError, UsageError
from benchmarks.ground import ROOT, Ground
from benchmarks.machine import machine_facts, server_facts
from benchmarks.measurement import Found, Measurement, Mode, load_all, save
from benchmarks.measures import MEASURES, Measure
from benchmarks.page import page
from benchmarks.processes import MeasureFailed

RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the command line asks for."""

    measures: Sequence[Measure]
    mode: Mode
    #: Folder that keeps the results.
    results: Path
    #: The table.
    page: Path


def main() -> int:
    """Run the chosen measures, keep their results, and write the page; 1 if a measure failed."""
    order = _order()
    signal.signal(signal.SIGTERM, _end)
    failed = False
    if order.measures:
        try:
            place = Ground()
        except UsageError as error:
            print(f"Error: {error}", file=sys.stderr)
            return error.exit_code
        with place as ground:
            for measure in order.measures:
                failed |= not take(ground, measure, order.mode, order.results)
    _write_page(order)
    return int(failed)


def _order() -> Order:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, under two minutes in all")
    parser.add_argument("--only", default="", metavar="NAMES", help=f"some of: {', '.join(MEASURES)}")
    parser.add_argument(
        "--page-only", action="store_true", help="measure nothing, write the page from the last results"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where results are kept")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="where the table is written")
    given = parser.parse_args()
    names = [name for name in given.only.split(",") if name]
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        parser.error(f"there is no measure {unknown[0]!r}; use some of {', '.join(MEASURES)}")
    chosen = [] if given.page_only else [MEASURES[name] for name in names or MEASURES]
    mode = Mode.QUICK if given.quick else Mode.FULL
    return Order(measures=chosen, mode=mode, results=given.results, page=given.page)


def take(ground: Ground, measure: Measure, mode: Mode, results: Path) -> bool:
    """Take one measure, keep and print what it found; False if it failed, which is told and leaves the last result as it is."""
    print(f"{measure.KEY}: {measure.TITLE} …", flush=True)
    facts = machine_facts()
    began = time.monotonic()
    try:
        with _at_most(measure.LIMITS[mode]):
            ground.empty()
            found = measure.measure(ground, mode)
    except (MeasureFailed, BackfillError) as error:
        print(f"  failed: {error}", file=sys.stderr, flush=True)
        return False
    with ground.broker() as broker:
        facts |= server_facts(ground.engine, broker)
    measurement = _measurement(measure, mode, found, facts, time.monotonic() - began)
    save(measurement, results)
    _print(measurement)
    return True


def _measurement(measure: Measure, mode: Mode, found: Found, facts: dict[str, Any], seconds: float) -> Measurement:
    return Measurement(
        key=measure.KEY,
        title=measure.TITLE,
        mode=mode,
        how=_paragraph(measure.__doc__ or ""),
        figures=found.figures,
        sizes=found.sizes,
        raw=found.raw,
        facts=facts,
        seconds=round(seconds, 1),
    )


def _paragraph(docstring: str) -> str:
    """Return what follows the first line of a docstring: that is a title of its own."""
    return docstring.partition("\n\n")[2].strip()


def _print(measurement: Measurement) -> None:
    for figure in measurement.figures:
        value = "missing" if figure.value is None else f"{figure.value:.4g} {figure.unit}"
        goal = "" if figure.goal is None else f"   (goal {figure.goal.relation} {figure.goal.bound:g})"
        verdict = {True: "  met", False: "  MISSED", None: ""}[figure.met]
        print(f"  {figure.name}: {value}{goal}{verdict}")
    print(f"  took {measurement.seconds:.0f} s", flush=True)


def _write_page(order: Order) -> None:
    results = {mode: load_all(order.results, mode) for mode in Mode}
    order.page.write_text(page(results, list(MEASURES)), encoding="utf-8")
    print(f"The table is in {order.page}.")


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise `MeasureFailed` in the block when it takes longer."""

    def ring(number: int, frame: FrameType | None) -> NoReturn:
        del number, frame
        raise MeasureFailed(f"it took longer than its limit of {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)  # somebody else's, if there was one


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """Leave every block in order, so that nothing that was started stays behind."""
    del frame
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
