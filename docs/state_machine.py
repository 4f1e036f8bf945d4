"""Draws docs/state_machine.md from the transition table of `backfill.states`.

`python docs/state_machine.py` writes the page, with `--check` it only compares and exits with 1 if the page is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path

from backfill.states import FINISHED, IDLE, IN_FLIGHT, TRANSITIONS, TaskInstanceState

PAGE = Path(__file__).with_suffix(".md")

_INTRODUCTION = """\
# Task instance states

Drawn from `TRANSITIONS` in `backfill/states.py` by `make docs`; a test holds the two together, and another holds every guard of the
store against the table. No other transition is ever written. Each one takes effect only if the row still has the state, and where an
attempt is concerned the attempt id, that its writer read; otherwise nothing changes and the writer reads again.

The picture leaves out what an operator may do at any time (S3.22 clear, S3.25 set by hand) and `removed` (S3.20, S3.21).
"""

#: Too many arrows to draw; the table below has them.
_NOT_DRAWN = {"S3.1", "S3.20", "S3.21", "S3.22", "S3.25"}
_GROUPS = {
    "idle": IDLE,
    "in flight": IN_FLIGHT,
    "finished": FINISHED,
    "unfinished": IDLE | IN_FLIGHT,
    "any": frozenset(TaskInstanceState),
}


def page() -> str:
    """Return the text of the page."""
    return "\n".join([_INTRODUCTION, *_picture(), "", *_table(), ""])


def _picture() -> list[str]:
    arrows: dict[tuple[str, str], list[str]] = {}
    for transition in TRANSITIONS:
        if transition.rule in _NOT_DRAWN:
            continue
        for source in sorted(transition.sources):
            for target in sorted(transition.targets - {source}):
                arrows.setdefault((source, target), []).append(transition.rule.removeprefix("S"))
    lines = [f"    {source} --> {target}: {', '.join(rules)}" for (source, target), rules in sorted(arrows.items())]
    return ["```mermaid", "stateDiagram-v2", "    [*] --> none: 3.1", *lines, "```"]


def _table() -> list[str]:
    rows = [f"| {t.rule} | {_states(t.sources)} | {t.event} | {_states(t.targets)} | {t.writer} |" for t in TRANSITIONS]
    return ["| rule | from | event | to | writer |", "| --- | --- | --- | --- | --- |", *rows]


def _states(states: frozenset[TaskInstanceState]) -> str:
    if not states:
        return "(new)"
    for name, group in _GROUPS.items():
        if states == group:
            return name
        if len(group) > 1 and name in {"idle", "finished", "unfinished"} and group < states:
            rest = " ".join(f"`{state}`" for state in sorted(states - group))
            return f"{name} {rest}"
    return " ".join(f"`{state}`" for state in sorted(states))


def main() -> int:
    """Write the page, or compare it."""
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page():
        return 0
    sys.stderr.write(f"{PAGE.name} is out of date; run `make docs`.\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
