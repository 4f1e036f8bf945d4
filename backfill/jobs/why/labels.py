"""Names of task instances in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from backfill.clock import as_utc, moment_text
from backfill.engine.waiting import Awaited, AwaitedPool, AwaitedSubdag
from backfill.keys import UNMAPPED
from backfill.store.inspection import Occupant

#: A sentence names so many; the rest is counted.
NAMED = 3


def label(task_id: str, logical_date: datetime, map_index: int | None = None) -> str:
    """Return `load of 2024-01-03`, with the map index where there is one."""
    index = "" if map_index is None or map_index == UNMAPPED else f"[{map_index}]"
    return f"{task_id}{index} of {moment_text(as_utc(logical_date))}"


def task_name(root: str, dag_id: str, task_id: str) -> str:
    """Return `load`, or of a subdag of the DAG `root` `part.load`: by this it is asked for."""
    return f"{dag_id}.{task_id}".removeprefix(f"{root}.")


def occupant_label(occupant: Occupant) -> str:
    """Return `sales.load of 2024-01-03`."""
    return f"{occupant.dag_id}.{label(occupant.task_id, occupant.logical_date, occupant.map_index)}"


def awaited_label(awaited: Awaited, own_date: datetime) -> str:
    """Return what is waited for with its state; the date is left out where it is one's own."""
    if isinstance(awaited, AwaitedPool):
        return str(awaited)
    when = "" if awaited.logical_date == own_date else f" of {moment_text(as_utc(awaited.logical_date))}"
    if isinstance(awaited, AwaitedSubdag):
        return f"what is left of the subdag of {awaited.task_id}{when}"
    index = "" if awaited.map_index == UNMAPPED else f"[{awaited.map_index}]"
    state = str(awaited.state) if awaited.state else "not there yet"
    return f"{awaited.task_id}{index}{when} ({'not started' if state == 'none' else state})"


def listed(names: Sequence[str]) -> str:
    """Return the first few by name, and the number of the others."""
    shown = list(names[:NAMED])
    if len(names) > NAMED:
        shown.append(f"{len(names) - NAMED} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def counted(number: int, word: str) -> str:
    """Return a number with its word, in the plural where that is due."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
