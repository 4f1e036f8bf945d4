"""The model's answers to statements about runs, and about the run before a run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from math import inf
from typing import Any

from model_database import Row, Tables, answers, record
from model_jobs import run_at

from backfill.facts import RunFacts, TaskInstanceFacts
from backfill.keys import backfill_run_id
from backfill.states import ENDED_BADLY, IDLE, IN_FLIGHT, UNFINISHED
from backfill.store import alignment, giving_way, previous, runs
from backfill.store.alignment import TaskTemplate


def run_facts(run: Row, ordinal: int) -> RunFacts:
    return RunFacts(*(getattr(run, name) for name in RunFacts._fields[:-1]), ordinal)


@answers(runs._ADMIT)
def admit(
    t: Tables, now: datetime, *, job_id: int, dag_id: str, ordinals: Sequence[int], conf: str | None
) -> list[Any]:
    due = [
        (date, run_at(t, dag_id, date.logical_date))
        for date in t.date.values()
        if date.job_id == job_id and date.dag_id == dag_id and date.ordinal in ordinals
        if date.active and date.progress == "pending"
    ]
    in_order = sorted(due, key=lambda each: (each[1] is None, each[1].id if each[1] else 0, each[0].ordinal))
    admitted = []
    for date, found in in_order:
        run_id = next(t.run_ids)  # an upsert takes a number whether it needs one or not
        common = {"job_id": job_id, "state": "running", "run_type": "backfill", "start_date": now, "end_date": None}
        given = {} if conf is None else {"conf": json.loads(conf)}
        if found is None:
            run = t.run[run_id] = _new_run(run_id, date, **common, **given)
        elif found.state != "running" or found.run_type == "backfill":
            run = t.change("run", found.id, idle_seconds=0.0, **common, **given)
        else:
            continue
        t.change("date", (job_id, dag_id, date.ordinal), progress="admitted", dag_run_id=run.id)
        admitted.append(run_facts(run, date.ordinal))
    return sorted(admitted, key=lambda run: run.ordinal)


def _new_run(run_id: int, date: Row, **values: Any) -> Row:
    return Row(
        id=run_id,
        dag_id=date.dag_id,
        run_id=backfill_run_id(date.logical_date),
        logical_date=date.logical_date,
        data_interval_start=date.data_interval_start,
        data_interval_end=date.data_interval_end,
        external_trigger=False,
        creating_job_id=values["job_id"],
        idle_seconds=0.0,
        **{"conf": {}, **values},
    )


_COLUMNS = (
    "task_ids",
    "map_indexes",
    "max_tries",
    "pools",
    "pool_slots",
    "queues",
    "executors",
    "operators",
    "priority_weights",
    "dynamic",
)
_TAKEN_OVER = ("pool", "pool_slots", "queue", "executor", "operator", "priority_weight")


def templates(given: dict[str, Any]) -> list[TaskTemplate]:
    return [TaskTemplate(*values) for values in zip(*(given[name] for name in _COLUMNS), strict=True)]


def _has_indexes(t: Tables, run_id: int, task_id: str) -> bool:
    return any(
        ti.dag_run_id == run_id and ti.task_id == task_id and ti.map_index >= 0 and ti.state != "removed"
        for ti in t.ti.values()
    )


def _match(ti: Row, wanted: Iterable[TaskTemplate]) -> TaskTemplate | None:
    return next(
        (each for each in wanted if each.task_id == ti.task_id and (each.map_index == ti.map_index or each.dynamic)),
        None,
    )


@answers(alignment._ALIGN_EXISTING)
def align_existing(t: Tables, now: datetime, *, dag_run_ids: Sequence[int], is_subset: bool, **given: Any) -> list[Any]:
    wanted = templates(given)
    for ti in t.tis_of(dag_run_ids):
        if is_subset and ti.task_id not in given["task_ids"]:
            continue
        template = _match(ti, wanted)
        if template is None:
            if ti.state != "removed" and ti.state not in IN_FLIGHT:
                t.change("ti", ti.id, state="removed", try_open=False, next_attempt_at=None)
            continue
        values = {name: getattr(template, name) for name in _TAKEN_OVER}
        if ti.state == "removed":
            expanded = template.dynamic and _has_indexes(t, ti.dag_run_id, ti.task_id)
            if template.map_index == ti.map_index and not expanded:
                tries = ti.try_number + template.max_tries
                back = {"state": "none", "max_tries": tries, "try_open": False, "next_attempt_at": None}
                t.change("ti", ti.id, **back, **values)
        elif ti.state in IDLE:
            t.change("ti", ti.id, **values)
    return []


@answers(alignment._CREATE_MISSING)
def create_missing(t: Tables, now: datetime, *, dag_run_ids: Sequence[int], is_subset: bool, **given: Any) -> list[Any]:
    are_not_all = any(t.tis_of([run_id]) for run_id in dag_run_ids)
    missing = [
        (t.run[run_id], template)
        for run_id in dag_run_ids
        for template in templates(given)
        if not (template.dynamic and _has_indexes(t, run_id, template.task_id))
    ]
    created = [insert_ti(t, run, template._asdict()) for run, template in missing]
    return [(*facts(ti), are_not_all) for ti in created if ti is not None]


_UNSET = (
    "external_executor_id",
    "queued_by_job_id",
    "queued_at",
    "start_date",
    "end_date",
    "duration",
    "first_start_date",
    "next_attempt_at",
    "heartbeat_at",
    "hostname",
    "pid",
    "skips",
    "error",
)


def facts(ti: Row) -> TaskInstanceFacts:
    return TaskInstanceFacts(
        *(getattr(ti, "external_executor_id" if name == "attempt_id" else name) for name in TaskInstanceFacts._fields)
    )


def insert_ti(t: Tables, run: Row, template: dict[str, Any]) -> Row | None:
    """Add a task instance and return it, unless there is one; either way a number is used up, as by `on conflict do nothing`."""
    ti_id = next(t.ti_ids)
    place = (run.id, template["task_id"], template["map_index"])
    if any((ti.dag_run_id, ti.task_id, ti.map_index) == place for ti in t.ti.values()):
        return None
    values = {name: value for name, value in template.items() if name != "dynamic"}
    t.ti[ti_id] = Row(
        id=ti_id,
        dag_run_id=run.id,
        dag_id=run.dag_id,
        run_id=run.run_id,
        state="none",
        try_number=0,
        try_open=False,
        infrastructure_failures=0,
        **dict.fromkeys(_UNSET),
        **values,
    )
    return t.ti[ti_id]


@answers(runs._COUNT_RUNNING)
def count_running(t: Tables, now: datetime, *, dag_id: str, job_id: int | None) -> list[Any]:
    counted = [
        run for run in t.run.values() if run.dag_id == dag_id and run.state == "running" and not run.external_trigger
    ]
    return [(len(counted), sum(job_id is not None and run.job_id == job_id for run in counted))]


def ordinal_of(t: Tables, run: Row) -> int | None:
    places = [(date.job_id, date.ordinal) for date in t.date.values() if date.dag_run_id == run.id]
    return max(places)[1] if places else None


def _in_order(t: Tables, found: Iterable[Row], then_by: str) -> list[RunFacts]:
    placed = [(ordinal_of(t, run), run) for run in found]
    placed.sort(key=lambda each: (inf if each[0] is None else each[0], getattr(each[1], then_by)))
    return [run_facts(run, -1 if ordinal is None else ordinal) for ordinal, run in placed]


@answers(runs._SELECT_WINDOW)
def select_window(t: Tables, now: datetime, *, job_id: int) -> list[Any]:
    return _in_order(t, [run for run in t.run.values() if run.job_id == job_id and run.state == "running"], "id")


@answers(runs._SELECT_CUT_SHORT)
def select_cut_short(t: Tables, now: datetime, *, job_id: int) -> list[Any]:
    return [
        record(
            id=run.id,
            cut_short=any(ti.state in UNFINISHED or ti.state in ENDED_BADLY for ti in t.tis_of([run.id])),
        )
        for run in sorted(t.run.values(), key=lambda run: run.id)
        if run.job_id == job_id and run.state == "running"
    ]


@answers(runs._LOCK)
def lock_runs(t: Tables, now: datetime, *, dag_run_ids: Sequence[int]) -> list[Any]:
    return [(run_id,) for run_id in sorted(dag_run_ids) if run_id in t.run]


@answers(runs._FINISH)
def finish_runs(
    t: Tables,
    now: datetime,
    *,
    dag_run_ids: Sequence[int],
    states: Sequence[str],
    ti_ids: Sequence[int],
    ti_states: Sequence[str],
) -> list[Any]:
    seen = zip(ti_ids, ti_states, strict=True)
    going_on = {t.ti[ti_id].dag_run_id for ti_id, state in seen if ti_id in t.ti and t.ti[ti_id].state != state}
    finished = [(run_id, False) for run_id in going_on]
    for run_id, state in zip(dag_run_ids, states, strict=True):
        run = t.run.get(run_id)
        if run is None or run.state != "running" or run_id in going_on or state not in {"success", "failed"}:
            continue
        t.change("run", run_id, state=str(state), end_date=now, job_id=None)
        finished.append((run_id, True))
        for key, date in list(t.date.items()):
            if date.dag_run_id == run_id and date.active:
                t.change("date", key, progress="finished")
    return finished


@answers(giving_way._GIVE_BACK)
def give_back(t: Tables, now: datetime, *, job_id: int, dag_run_id: int, earlier_id: int | None) -> list[Any]:
    run = t.run.get(dag_run_id)
    if earlier_id in t.run and t.run[earlier_id].state == "running":
        return []
    if run is None or run.state != "running" or run.job_id != job_id:
        return []
    if any(ti.state in IN_FLIGHT for ti in t.tis_of([dag_run_id])):
        return []
    admitted = [
        key
        for key, date in t.date.items()
        if date.dag_run_id == dag_run_id and date.active and date.progress == "admitted"
    ]
    if admitted:
        t.change("run", dag_run_id, state="queued", job_id=None)
    for key in admitted:
        t.change("date", key, progress="pending", action="take")
    return [(dag_run_id,) for _ in admitted]


@answers(previous._SELECT_PREVIOUS)
def select_previous(
    t: Tables, now: datetime, *, dag_id: str, dag_run_ids: Sequence[int], task_ids: Sequence[str]
) -> list[Any]:
    return [
        row for run_id in dag_run_ids if run_id in t.run for row in _previous_of(t, dag_id, t.run[run_id], task_ids)
    ]


def _previous_of(t: Tables, dag_id: str, asked: Row, task_ids: Sequence[str]) -> list[Any]:
    earlier = [run for run in t.run.values() if run.dag_id == dag_id and run.logical_date < asked.logical_date]
    made = max((run.logical_date for run in earlier if run.run_type != "manual"), default=None)
    to_come = [
        date.logical_date
        for date in t.date.values()
        if date.dag_id == dag_id and date.active and date.progress != "finished"
    ]
    since = made or datetime.min.replace(tzinfo=UTC)
    to_run = max((date for date in to_come if since < date < asked.logical_date), default=None)
    date = to_run or made
    if date is None:
        return []
    run = run_at(t, dag_id, date)
    rows = []
    for task_id in task_ids or [None]:
        there = [
            ti.state for ti in t.tis_of([run.id] if run else []) if ti.task_id == task_id and ti.state != "removed"
        ]
        seen = any(ti.task_id == task_id and ti.state != "removed" for ti in t.tis_of([each.id for each in earlier]))
        rows.append(
            record(
                asked_id=asked.id,
                logical_date=date,
                dag_run_id=run.id if run else None,
                driven=date in to_come,
                task_id=task_id,
                states=there or None,
                seen=seen,
            )
        )
    return rows
