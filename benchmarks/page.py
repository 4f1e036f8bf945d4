"""Writes `docs/benchmarks.md` from the files of results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.figures import spread
from benchmarks.measurement import Figure, Goal, Measurement, Mode

_INTRODUCTION = """\
# Benchmarks

Written by `make bench` (all of it: about 35 minutes on two cores, a third of it for a million task instances), `make bench QUICK=1` (smaller
sizes, under two minutes; Airflow takes one more) or `make bench ONLY=latency,idle` (some of it). Everything is started by the benchmark, on sockets of its own: a
PostgreSQL with fsync on, a Valkey, workers. Each measure has a limit after which it is given up and said to have failed. The figures with
their samples are in `benchmarks/results/`.

A figure is the median over its runs, beside it the smallest and the largest. Ratios are taken within each round, in which the two sides
take turns (A B A B). [performance.md](performance.md) tells where the time goes.
"""

_PUBLISHED = """\
## Not measured here

Figures of other systems from the design of this project, which were measured on another two-core machine with two worker processes and
no-op Python tasks. They give an order of magnitude; nothing above was computed from them.

| system | task instances per second |
| --- | --- |
| Airflow 2.10 `dags backfill`, CeleryExecutor | 2.4 |
| Airflow 3.1 `backfill create`, CeleryExecutor | 1.7 |
| Dagster 1.13, partition backfill | 0.7 |
"""

_HEADINGS = {Mode.FULL: "Full run", Mode.QUICK: "Quick run"}
_ABOUT = {
    Mode.FULL: "",
    Mode.QUICK: "Small sizes, so that it takes under two minutes: good for seeing whether something broke, not for quoting.\n\n",
}


def page(results: Mapping[Mode, Mapping[str, Measurement]], order: Sequence[str]) -> str:
    """Return the page; `order` are the keys of all measures, those without a result are said to be missing."""
    parts = [_INTRODUCTION]
    parts += [_section(mode, results[mode], order) for mode in Mode if results.get(mode)]
    latest = {key: found for mode in reversed(Mode) for key, found in results.get(mode, {}).items()}
    parts += [_how(latest[key] for key in order if key in latest), _PUBLISHED]
    return "\n".join(parts)


def _section(mode: Mode, found: Mapping[str, Measurement], order: Sequence[str]) -> str:
    lines = ["| measure | goal | measured | smallest – largest | |", "| --- | --- | --- | --- | --- |"]
    for key in order:
        lines += _rows(found[key]) if key in found else [f"| **{key}** | | not run | | |"]
    return f"## {_HEADINGS[mode]}\n\n{_ABOUT[mode]}{_facts(list(found.values()))}\n" + "\n".join(lines) + "\n"


def _rows(measurement: Measurement) -> list[str]:
    sizes = ", ".join(f"{name} {value}" for name, value in measurement.sizes.items())
    return [f"| **{measurement.title}** ({sizes}) | | | | |", *(_row(figure) for figure in measurement.figures)]


def _row(figure: Figure) -> str:
    note = f"<br>{figure.note}" if figure.note else ""
    goal = _goal(figure.goal, figure.unit) if figure.goal else ""
    return f"| {figure.name}{note} | {goal} | {_value(figure)} | {_range(figure)} | {_verdict(figure)} |"


def _goal(goal: Goal, unit: str) -> str:
    return f"{goal.relation} {_number(goal.bound)} {unit}".strip()


def _value(figure: Figure) -> str:
    return "missing" if figure.value is None else f"{_number(figure.value)} {figure.unit}".strip()


def _range(figure: Figure) -> str:
    if len(figure.samples) < 2:  # noqa: PLR2004  # one sample has no range
        return "one run" if figure.samples else ""
    smallest, largest = spread(figure.samples)
    return f"{_number(smallest)} – {_number(largest)}"


def _verdict(figure: Figure) -> str:
    if figure.goal is None:
        return ""
    return {True: "met", False: "**missed**", None: "not measured"}[figure.met]


def _number(value: float) -> str:
    """Return three significant digits, and all digits before the point."""
    if value == 0:
        return "0"
    digits = 3 if abs(value) < 1000 else 4  # noqa: PLR2004  # from there on whole numbers
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"  # noqa: PLR2004  # as above


def _facts(measurements: Sequence[Measurement]) -> str:
    """Return where and when all of it was measured; what differs between the measures is listed."""

    def all_of(*path: str) -> str:
        found = {_dig(measurement.facts, path) for measurement in measurements}
        return ", ".join(sorted(str(each) for each in found if each is not None))

    packages = ", ".join(f"{name} {all_of('packages', name)}" for name in ("celery", "kombu", "sqlalchemy"))
    dates = sorted(str(measurement.facts.get("date", "")) for measurement in measurements)
    seconds = sum(measurement.seconds for measurement in measurements)
    return (
        f"{dates[0]} to {dates[-1]}, {seconds:.0f} s in all, revision {all_of('revision')}; {all_of('cpu')}, {all_of('cores')} cores,"
        f" {all_of('memory_gib')} GiB, Linux {all_of('kernel')}, Python {all_of('python')}, {packages}; PostgreSQL"
        f" {all_of('postgresql', 'server_version')} with fsync {all_of('postgresql', 'fsync')}, Valkey {all_of('valkey')}; load of the"
        f" machine before each measure {all_of('load')}.\n"
    )


def _dig(facts: Mapping[str, Any], path: Iterable[str]) -> Any:
    found: Any = facts
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _how(measurements: Iterable[Measurement]) -> str:
    told = [f"**{measurement.title}.** {measurement.how}\n" for measurement in measurements]
    return "## How it is measured\n\n" + "\n".join(told)
