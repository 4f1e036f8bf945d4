"""What the design does with 1,000 workers and 10⁸ task instances: `python -m benchmarks.capacity`, with `--write` into the page.

A calculation, not a measurement: what one task instance costs each part was measured by `make bench` on this machine (the last full
results), what a part can bear was measured too or is assumed below, and the rest is multiplication. A part whose load is above 100 % is
where the system would stop growing; the most loaded one is the first limit met.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from benchmarks.__main__ import RESULTS
from benchmarks.ground import ROOT
from benchmarks.measurement import Measurement, Mode, load_all

PAGE = ROOT / "docs" / "performance.md"
_BEGIN, _END = "<!-- calculated by benchmarks/capacity.py -->", "<!-- end of what is calculated -->"
_DAY = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """The installation, and what its parts cost and bear."""

    # the installation
    workers: int = 1_000
    children: int = 8
    task_instances: int = 100_000_000
    #: Seconds of one task, one row of the table for each.
    durations: Sequence[float] = (1, 10, 60, 600)
    # settings
    heartbeat_interval: float = 5.0
    connections_by_child: float = 1.0
    max_connections: int = 500
    # what a task instance costs, measured
    #: With a message for each: tasks of a second or more travel alone.
    coordinator_ms: float = 0.23
    #: A claim and an end for each.
    commits: float = 2.0
    #: One to the worker, two events back.
    messages: float = 3.0
    bytes_kept: float = 600.0
    # what a part bears, measured: on this machine, whose two cores everything shares
    coordinator_rate: float = 2_500.0
    commits_per_second: float = 6_000.0
    messages_per_second: float = 20_000.0

    @property
    def slots(self) -> int:
        """Task instances that can run at a time."""
        return self.workers * self.children


@dataclass(frozen=True, slots=True)
class Load:
    """How much of what a part bears is asked of it."""

    part: str
    #: 1 is all that it bears.
    share: float


def loads(given: Assumptions, seconds: float) -> list[Load]:
    """Return the load of every part when all slots run tasks of `seconds`, the most loaded first."""
    rate = given.slots / seconds
    heartbeats = given.slots / given.heartbeat_interval
    found = [
        Load("database connections", given.slots * given.connections_by_child / given.max_connections),
        Load("coordinator, one job", rate / min(given.coordinator_rate, 1000 / given.coordinator_ms)),
        Load("commits", (rate * given.commits + heartbeats) / given.commits_per_second),
        Load("broker messages", rate * given.messages / given.messages_per_second),
    ]
    return sorted(found, key=lambda load: load.share, reverse=True)


def measured(results: Mapping[str, Measurement]) -> Assumptions:
    """Return the assumptions with what full results say in place of the defaults."""
    sources = {
        "coordinator_rate": ("scale", "task instances per second"),
        "bytes_kept": ("scale", "bytes in the database by the task instance"),
        "commits_per_second": ("ceilings", "commits of 32 connections"),
        "messages_per_second": ("ceilings", "messages through the broker, 100 at a time"),
    }
    found = {name: _figure(results, *source) for name, source in sources.items()}
    return Assumptions(**{name: value for name, value in found.items() if value is not None})  # type: ignore[arg-type]


def _figure(results: Mapping[str, Measurement], key: str, name: str) -> float | None:
    """Return the first figure of a measure whose name begins with `name` and that is no ratio."""
    figures = results[key].figures if key in results else ()
    return next((each.value for each in figures if each.name.startswith(name) and each.unit != "×"), None)


def text(given: Assumptions) -> str:
    """Return the calculation as Markdown."""
    lines = [
        (
            f"Assumed: {given.workers:,} workers of {given.children} children each ({given.slots:,} slots), {given.task_instances:.0e} task"
            f" instances in one job, `max_connections` {given.max_connections}, a heartbeat every {given.heartbeat_interval:g} s. By the task instance,"
            f" which travels alone as it takes a second or more: {given.coordinator_ms:.2f} ms of coordinator CPU, {given.commits:g} commits,"
            f" {given.messages:g} messages, {given.bytes_kept:.0f} bytes kept. Measured here: one coordinator dispatches {given.coordinator_rate:,.0f} a second at most, the database takes"
            f" {given.commits_per_second:,.0f} commits and the broker {given.messages_per_second:,.0f} messages a second."
        ),
        "",
        "| each task takes | wanted | 10⁸ take | load of the parts, most loaded first |",
        "| --- | --- | --- | --- |",
    ]
    lines += [_row(given, seconds) for seconds in given.durations]
    return "\n".join(
        [*lines, "", f"The tables hold {given.task_instances * given.bytes_kept / 2**30:,.0f} GiB at the end."]
    )


def _row(given: Assumptions, seconds: float) -> str:
    rate, parts = given.slots / seconds, loads(given, seconds)
    slowed = max(1.0, *(load.share for load in parts if load.part != "database connections"))
    days = given.task_instances / rate * slowed / _DAY
    told = ", ".join(f"{load.part} {100 * load.share:,.0f} %" for load in parts)
    return f"| {seconds:g} s | {rate:,.0f}/s | {days:,.1f} days | {told} |"


def main() -> int:
    """Print the calculation, or put it into the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
    default = measured(load_all(RESULTS, Mode.FULL))
    for each in fields(Assumptions):
        if each.name != "durations":
            value = getattr(default, each.name)
            parser.add_argument(f"--{each.name.replace('_', '-')}", type=type(value), default=value, metavar="N")
    given = vars(parser.parse_args())
    write = given.pop("write")
    calculated = text(Assumptions(**given))
    if write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
        after = rest.partition(_END)[2]
        PAGE.write_text(f"{before}{_BEGIN}\n\n{calculated}\n\n{_END}{after}", encoding="utf-8")
    else:
        sys.stdout.write(f"{calculated}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
