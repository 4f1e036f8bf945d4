"""The table of faults, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from chaos_verdict import Verdict

FILE = Path(__file__).resolve().parents[2] / "build" / "chaos.md"
#: Names of the properties of a test's report, in the order of the table; they are its heading, too.
COLUMNS = (
    "fault",
    "seed",
    "task instances",
    "started",
    "finished",
    "attempts lost",
    "run twice",
    "overlapping",
    "lost",
    "ended, not committed",
    "failed, and told why",
    "differing",
    "seconds to recover",
)


def row_of(name: str, seed: int, verdict: Verdict, seconds: float) -> dict[str, object]:
    """Return what a line of the table says, by column."""
    values = (
        name,
        seed,
        verdict.task_instances,
        verdict.started,
        verdict.finished,
        verdict.attempts_lost,
        len(verdict.run_twice),
        len(verdict.overlapping),
        len(verdict.lost),
        len(verdict.not_committed),
        len(verdict.spoiled),
        len(verdict.differing),
        f"{seconds:.1f}",
    )
    return dict(zip(COLUMNS, values, strict=True))


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return a table of `rows`, in the order of their faults' names."""
    lines = [[str(row[column]) for column in COLUMNS] for row in rows]
    lines.sort(key=lambda line: (line[0], int(line[1])))
    heading = [list(COLUMNS), ["---"] + ["---:"] * (len(COLUMNS) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in heading + lines)


def write_table(text: str) -> None:
    """Keep it where it can be looked at after the run."""
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(f"{text}\n")
