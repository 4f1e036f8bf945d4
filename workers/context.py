"""The template context of an attempt (S12.2, S12.3). What has to be looked up or worked out is so only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
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
    """A mapping whose values may be worked out at first use; callbacks find their `exception` added to it.

    `lazy` has a function of `source` for each such entry.
    """

    def __init__(self, values: dict[str, Any], lazy: Mapping[str, Callable[[_Source], Any]], source: _Source) -> None:
        self._values = values
        self._lazy = lazy
        self._source = source
        self._deleted: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            if name not in self._lazy or name in self._deleted:
                raise
        value = self._values[name] = self._lazy[name](self._source)
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        self._values[name] = value

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self._deleted.add(name)
        self._values.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        yield from tuple(self._values)
        yield from (name for name in self._lazy if name not in self._values and name not in self._deleted)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self._values or (name in self._lazy and name not in self._deleted)

    def __repr__(self) -> str:
        return f"<TaskContext of {self['task_instance_key_str']}>"


def build_context(
    *, ti: TaskInstance, claim: Claim, dag: Any, database: Database, params: Mapping[str, Any] | None = None
) -> TaskContext:
    """Return the context of one attempt; `task` is that of `ti`, and has to be exchanged with it."""
    values = {
        "dag": dag,
        "task": ti.task,
        "ti": ti,
        "task_instance": ti,
        "params": {} if params is None else params,
    }
    return TaskContext(values, _LAZY, _Source(ti, claim, dag.timetable, database))


@lru_cache(maxsize=256)
def _dates(date: datetime) -> Mapping[str, str]:
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


class _Source:
    """What entries of the context are worked out from; run dates before and after are looked up once, if at all."""

    def __init__(self, ti: TaskInstance, claim: Claim, timetable: Timetable, database: Database) -> None:
        self.ti = ti
        self.claim = claim
        self._timetable = timetable
        self._database = database

    @cached_property
    def date(self) -> datetime:
        """The logical date in UTC."""
        return self.claim.logical_date.astimezone(UTC)

    @cached_property
    def expanded(self) -> int | None:
        """How many instances the task has, if it is mapped."""
        return _expanded(self.claim, self._database)

    @cached_property
    def previous(self) -> datetime | None:
        """The run date before this one."""
        return previous_date(self._timetable, self._run_date())

    @cached_property
    def following(self) -> datetime | None:
        """The run date after this one."""
        following = self._timetable.following(self._run_date())
        return None if following is None else following.logical_date

    @cached_property
    def success(self) -> PreviousSuccess | None:
        """The run before this one that ended well."""
        claim = self.claim
        return self._database(lambda tx: select_previous_success(tx, claim.dag_id, claim.logical_date))

    def _run_date(self) -> RunDate:
        claim = self.claim
        return RunDate(claim.logical_date, claim.data_interval_start, claim.data_interval_end)


def _text(name: str) -> Callable[[_Source], str]:
    return lambda source: _dates(source.date)[name]


def _of_claim(name: str) -> Callable[[_Source], Any]:
    return lambda source: getattr(source.claim, name)


def _of_task(name: str) -> Callable[[_Source], Any]:
    return lambda source: getattr(source.ti.task, name)


def _of_success(name: str) -> Callable[[_Source], Any]:
    return lambda source: source.success and getattr(source.success, name)


_LAZY: Mapping[str, Callable[[_Source], Any]] = {
    **{name: _text(name) for name in _dates(datetime(2000, 1, 1, tzinfo=UTC))},
    "logical_date": lambda source: source.date,
    "execution_date": lambda source: source.date,
    **{name: _of_claim(name) for name in ("data_interval_start", "data_interval_end", "run_id", "conf")},
    "dag_run": lambda source: source.ti.dag_run,
    "task_instance_key_str": lambda source: f"{source.claim.dag_id}__{source.claim.task_id}__{source.date:%Y%m%d}",
    "macros": lambda _source: macros,
    "var": lambda _source: Variables(),
    "conn": lambda _source: Connections(),
    "test_mode": lambda _source: False,
    **{name: _of_task(name) for name in ("map_index_template", "inlets", "outlets")},
    "inlet_events": lambda _source: {},
    "outlet_events": lambda _source: {},
    "triggering_dataset_events": lambda _source: {},
    "prev_execution_date": lambda source: source.previous,
    "prev_ds": lambda source: _day(source.previous),
    "prev_ds_nodash": lambda source: _day(source.previous, dash=""),
    "next_execution_date": lambda source: source.following,
    "next_ds": lambda source: _day(source.following),
    "next_ds_nodash": lambda source: _day(source.following, dash=""),
    "prev_execution_date_success": _of_success("logical_date"),
    **{
        f"prev_{name}_success": _of_success(name)
        for name in ("start_date", "end_date", "data_interval_start", "data_interval_end")
    },
    "expanded_ti_count": lambda source: source.expanded,
}


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
