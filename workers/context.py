"""The template context of an attempt (S12.2, S12.3). What has to be looked up or worked out is so only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from backfill.store.claims import Claim
from backfill.store.context import PreviousSuccess, count_expanded, select_previous_success
from backfill.timetables import RunDate, Timetable
from workers import macros
from workers.connections import Connections
from workers.task_instance import Database, TaskInstance
from workers.variables import Variables

_DAY = timedelta(days=1)
#: The previous run date is looked for within that many data intervals before the logical date, one after the other.
_LOOK_BACK = (1, 2, 8, 64, 512, 4096)


class TaskContext(MutableMapping[str, Any]):
    """A mapping whose values may be worked out at first use; callbacks find their `exception` added to it."""

    def __init__(self, values: Mapping[str, Any], lazy: Mapping[str, Callable[[], Any]]) -> None:
        self._values = dict(values)
        self._lazy = dict(lazy)

    def __getitem__(self, name: str) -> Any:
        if name in self._lazy:
            self._values[name] = self._lazy.pop(name)()
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._lazy.pop(name, None)
        self._values[name] = value

    def __delitem__(self, name: str) -> None:
        if self._lazy.pop(name, None) is None:
            del self._values[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._values
        yield from tuple(self._lazy)

    def __len__(self) -> int:
        return len(self._values) + len(self._lazy)

    def __contains__(self, name: object) -> bool:
        return name in self._values or name in self._lazy

    def __repr__(self) -> str:
        return f"<TaskContext of {self._values.get('task_instance_key_str')}>"


def build_context(
    *, ti: TaskInstance, claim: Claim, dag: Any, database: Database, params: Mapping[str, Any] | None = None
) -> TaskContext:
    """Return the context of one attempt; `task` is that of `ti`, and has to be exchanged with it."""
    date = claim.logical_date.astimezone(UTC)
    task = ti.task
    neighbours = _Neighbours(claim, dag.timetable, database)
    values = {
        **_dates(date),
        "logical_date": date,
        "execution_date": date,
        "data_interval_start": claim.data_interval_start,
        "data_interval_end": claim.data_interval_end,
        "run_id": claim.run_id,
        "dag": dag,
        "dag_run": ti.dag_run,
        "task": task,
        "ti": ti,
        "task_instance": ti,
        "task_instance_key_str": f"{claim.dag_id}__{claim.task_id}__{date:%Y%m%d}",
        "params": {} if params is None else params,
        "conf": claim.conf,
        "macros": macros,
        "var": Variables(),
        "conn": Connections(),
        "test_mode": False,
        "map_index_template": task.map_index_template,
        "inlets": task.inlets,
        "outlets": task.outlets,
        "inlet_events": {},
        "outlet_events": {},
        "triggering_dataset_events": {},
    }
    return TaskContext(values, neighbours.entries() | {"expanded_ti_count": lambda: _expanded(claim, database)})


def _dates(date: datetime) -> dict[str, str]:
    """Return the texts that are made of the logical date alone; `date` is in UTC."""
    texts = {
        "ds": f"{date:%Y-%m-%d}",
        "ts": date.isoformat(),
        "ts_nodash": f"{date:%Y%m%dT%H%M%S}",
        "ts_nodash_with_tz": f"{date:%Y%m%dT%H%M%S%z}",
        "yesterday_ds": f"{date - _DAY:%Y-%m-%d}",
        "tomorrow_ds": f"{date + _DAY:%Y-%m-%d}",
    }
    return texts | {f"{name}_nodash": texts[name].replace("-", "") for name in ("ds", "yesterday_ds", "tomorrow_ds")}


def _expanded(claim: Claim, database: Database) -> int | None:
    if claim.map_index < 0:
        return None
    return database(lambda tx: count_expanded(tx, claim.dag_run_id, claim.task_id))


class _Neighbours:
    """The run dates before and after, and the previous successful run; each is looked up once, if at all."""

    def __init__(self, claim: Claim, timetable: Timetable, database: Database) -> None:
        self._claim = claim
        self._timetable = timetable
        self._database = database

    def entries(self) -> dict[str, Callable[[], Any]]:
        """Return the context's entries about neighbours, to be called when asked for."""
        entries: dict[str, Callable[[], Any]] = {
            "prev_execution_date": lambda: self._previous,
            "prev_ds": lambda: _day(self._previous),
            "prev_ds_nodash": lambda: _day(self._previous, dash=""),
            "next_execution_date": lambda: self._next,
            "next_ds": lambda: _day(self._next),
            "next_ds_nodash": lambda: _day(self._next, dash=""),
            "prev_execution_date_success": lambda: self._success and self._success.logical_date,
        }
        for name in ("start_date", "end_date", "data_interval_start", "data_interval_end"):
            entries[f"prev_{name}_success"] = lambda name=name: self._success and getattr(self._success, name)  # type: ignore[misc]  # binds the name of this round
        return entries

    @cached_property
    def _previous(self) -> datetime | None:
        return previous_date(self._timetable, self._run_date())

    @cached_property
    def _next(self) -> datetime | None:
        following = self._timetable.following(self._run_date())
        return None if following is None else following.logical_date

    @cached_property
    def _success(self) -> PreviousSuccess | None:
        claim = self._claim
        return self._database(lambda tx: select_previous_success(tx, claim.dag_id, claim.logical_date))

    def _run_date(self) -> RunDate:
        claim = self._claim
        return RunDate(claim.logical_date, claim.data_interval_start, claim.data_interval_end)


def previous_date(timetable: Timetable, run_date: RunDate) -> datetime | None:
    """Return the last date of the timetable before `run_date`; None if there is none.

    Timetables only look forward. Starting a whole number of data intervals back keeps those right that are anchored at the
    start of the range; a date that `run_date` does not follow is none of theirs, but where the search began.
    """
    interval = run_date.data_interval_end - run_date.data_interval_start or _DAY
    for intervals in _LOOK_BACK:
        try:
            start = run_date.logical_date - intervals * interval
        except OverflowError:
            return None
        for found in reversed(list(timetable.run_dates(start, run_date.logical_date))):
            following = timetable.following(found)
            if following is not None and following.logical_date == run_date.logical_date:
                return found.logical_date
    return None


def _day(date: datetime | None, dash: str = "-") -> str | None:
    return None if date is None else date.strftime(f"%Y{dash}%m{dash}%d")
