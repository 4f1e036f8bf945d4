"""Two checkouts side by side: `python -m benchmarks.compare ../before`, for whoever wants to know what a change has brought.

No-op tasks as in `make bench ONLY=throughput`, without peers, or tasks that sleep, which travel alone: rounds of the other checkout and
of this one take turns, each with its own servers and its own worker, so that both see the same machine. Prints a table; keeps nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.cpu import CpuByPart
from benchmarks.figures import median
from benchmarks.ground import ROOT, Ground
from benchmarks.measures.throughput import CHILDREN, TASKS, OurSide, our_side


def main() -> int:
    """Measure both checkouts in turn and print what they took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("other", type=Path, help="folder of the other checkout")
    parser.add_argument("--dates", type=int, default=200, metavar="N", help=f"of {TASKS} tasks each")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--children", type=int, default=CHILDREN, metavar="N", help="of each worker")
    parser.add_argument("--sleep", type=float, default=0.0, metavar="SECONDS", help="how long each task takes")
    parser.add_argument(
        "--in-flight", type=int, default=128, metavar="N", help="max_active_tasks of the DAG; its default is 16"
    )
    given = parser.parse_args()
    with ExitStack() as stack:
        sides = [_side(stack, root, given) for root in (given.other.resolve(), ROOT)]
        taken: list[list[OurSide]] = [[], []]
        for _ in range(given.rounds):
            for found, side in zip(taken, sides, strict=True):
                found.append(side(dates=given.dates))
    sys.stdout.write(table(*taken))
    return 0


def _side(stack: ExitStack, root: Path, given: argparse.Namespace) -> Callable[..., OurSide]:
    """Return what takes one round of the checkout at `root`, whose servers and worker run until `stack` ends."""
    ground = stack.enter_context(Ground(root))
    [worker] = stack.enter_context(ground.worker(given.children))
    ground.run("tasks", given.children, "--workers", "0")
    parameters = {"BENCH_SECONDS": given.sleep, "BENCH_IN_FLIGHT": given.in_flight}
    return partial(our_side, ground, CpuByPart(ground, {"worker": worker}), parameters=parameters)


def table(other: Sequence[OurSide], this: Sequence[OurSide]) -> str:
    """Return the medians of both sides as Markdown."""
    lines = ["| | other | this |", "| --- | --- | --- |"]
    rows: list[tuple[str, Callable[[OurSide], float]]] = [
        ("task instances per second", lambda side: side.rate),
        ("commits by the task instance", lambda side: side.commits),
        ("CPU by the task instance, ms", lambda side: sum(side.cpu.values())),
        *((f"of it {part}", partial(_part, part)) for part in this[0].cpu),
    ]
    lines += [f"| {name} | {_middle(figure, other)} | {_middle(figure, this)} |" for name, figure in rows]
    return "\n".join(lines) + "\n"


def _part(part: str, side: OurSide) -> float:
    return side.cpu[part]


def _middle(figure: Callable[[OurSide], float], sides: Sequence[OurSide]) -> str:
    return f"{median([figure(side) for side in sides]):.3g}"


if __name__ == "__main__":
    sys.exit(main())
