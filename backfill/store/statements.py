"""How a statement is written: once, at import, with the words of `backfill.states` put in as constants.

Constants, not parameters, let the planner use the partial indexes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from string import Template
from textwrap import dedent
from typing import Any, TypeVar, cast

from sqlalchemy import CursorResult, Result, Row, TextClause, TextualSelect, column, text

from backfill.facts import TaskInstanceFacts
from backfill.states import ACTIVE_JOB, ENDED_BADLY, FINISHED, FINISHED_JOB, IDLE, IN_FLIGHT, UNFINISHED
from backfill.store.prepared import REPEATED

R = TypeVar("R")

#: Columns of `task_instance as ti` in the order of `TaskInstanceFacts`.
_FACTS = ", ".join(
    "ti.external_executor_id::text as attempt_id" if name == "attempt_id" else f"ti.{name}"
    for name in TaskInstanceFacts._fields
)
#: The only column that does not come as `TaskInstanceFacts` has it: an array is read as a list.
_SKIPS = TaskInstanceFacts._fields.index("skips")


def _words(states: Iterable[str]) -> str:
    return f"({', '.join(repr(str(state)) for state in sorted(states))})"


_FRAGMENTS = {
    "facts": _FACTS,
    "idle": _words(IDLE),
    "in_flight": _words(IN_FLIGHT),
    "unfinished": _words(UNFINISHED),
    "finished": _words(FINISHED),
    "ended_badly": _words(ENDED_BADLY),
    "active_job": _words(ACTIVE_JOB),
    "finished_job": _words(FINISHED_JOB),
}


def statement(sql: str, **fragments: str) -> TextClause:
    """Return `sql` as a statement; `$facts`, `$idle` and the like stand for columns and lists of states.

    `fragments` are further ones: SQL text that several statements share, in which the same names may stand.
    """
    whole = Template(Template(dedent(sql)).safe_substitute(fragments)).substitute(_FRAGMENTS)
    return text(whole).execution_options(**REPEATED)


def named(clause: TextClause, *names: str) -> TextualSelect:
    """Return `clause` with the names of its columns, so that it is worked out once, and not each time, what rows are made of."""
    return clause.columns(*map(column, names)).execution_options(**REPEATED)


def columns(rows: Iterable[tuple[Any, ...]]) -> Sequence[list[Any]]:
    """Return `rows`, of which there is at least one, as columns: each is bound as one array."""
    return [list(column) for column in zip(*rows, strict=True)]


def fetch(result: Result[Any]) -> list[tuple[Any, ...]]:
    """Return all rows as the driver has them, for reads of thousands: a `Row` of SQLAlchemy around each costs several times as much."""
    rows = cast("list[tuple[Any, ...]]", cast("CursorResult[Any]", result).cursor.fetchall())
    result.close()
    return rows


def read_facts(result: Result[Any]) -> list[TaskInstanceFacts]:
    """Return rows that were selected with `$facts`."""
    return as_facts(fetch(result))


def as_facts(rows: Iterable[Sequence[Any]]) -> list[TaskInstanceFacts]:
    """Return `rows` whose columns are those of `$facts`."""
    make = TaskInstanceFacts._make
    return [make(row) if row[_SKIPS] is None else make((*row[:_SKIPS], tuple(row[_SKIPS]))) for row in rows]


def read(row_type: Callable[..., R], rows: Iterable[Row[Any]]) -> list[R]:
    """Return `rows` as values of a type whose fields are the columns selected."""
    return [row_type(*row) for row in rows]
