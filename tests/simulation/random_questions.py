"""Parameters for each statement that the model answers, drawn so that every guard is met by some rows and not by others."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import ModuleType
from typing import Any, NamedTuple

import model_attempts  # noqa: F401  # registers what answers the statements, with what it imports
import model_database
import model_stops  # noqa: F401  # so does this
from model_database import Row, Tables
from random_rows import DAGS, DAYS, NOW, POOLS, TASKS, Dice
from scripts import DAY, FIRST

from backfill import store
from backfill.states import ACTIVE_JOB, FINISHED, IN_FLIGHT, JobState
from backfill.store import (
    alignment,
    attempts,
    claims,
    clearing,
    dags,
    database,
    dates,
    giving_way,
    job_rows,
    jobs,
    leases,
    mapping,
    previous,
    recovery,
    report,
    runs,
    task_instances,
)

Parameters = dict[str, Any]
Asker = Callable[[Dice, Tables], Parameters]

_ASKERS: dict[int, Asker] = {}
#: Of a task instance or run that was deleted.
_GONE = 9999
_TIMEOUT = timedelta(seconds=30)


class Question(NamedTuple):
    """A statement, as which it is known in the store, and what it is asked with."""

    name: str
    statement: Any
    ask: Asker


def asked_with(*statements: Any) -> Callable[[Asker], Asker]:
    """Register what draws the parameters of `statements`."""

    def register(asker: Asker) -> Asker:
        _ASKERS.update((id(statement), asker) for statement in statements)
        return asker

    return register


def questions() -> list[Question]:
    """Return all statements that the model answers; `KeyError` for one of which nobody says what it is asked with."""
    names = {
        id(value): f"{module.__name__.removeprefix('backfill.store.')}.{name}"
        for module in vars(store).values()
        if isinstance(module, ModuleType)
        for name, value in vars(module).items()
    }
    known = model_database._ANSWERERS.items()
    return sorted(Question(names[key], statement, _ASKERS[key]) for key, (statement, _) in known)


# -- what many of them are asked with -----------------------------------------------------------------------------------


def _job_id(dice: Dice, t: Tables) -> int:
    return dice.choice([*sorted(t.job), 1, 1])


def _maybe_job_id(dice: Dice, t: Tables) -> int:
    return 99 if dice.rarely() else _job_id(dice, t)


def _in_order(rows: Mapping[Any, Row]) -> list[Row]:
    return [row for _, row in sorted(rows.items())]


def _run_ids(dice: Dice, t: Tables) -> list[int]:
    return dice.some(sorted(t.run))


def _tis(dice: Dice, t: Tables) -> list[Row]:
    return dice.some(_in_order(t.ti))


def _attempt_of(dice: Dice, t: Tables, ti: Row) -> str | None:
    """Return the attempt that the row has, mostly: else one of another row, one that nobody has, or none."""
    others = [other.external_executor_id for other in dice.some(_in_order(t.ti))[:1]]
    return ti.external_executor_id if dice.often() else dice.choice([*others, dice.attempt_id(), None])


def _pairs(dice: Dice, t: Tables) -> Parameters:
    tis = _tis(dice, t)
    attempts_of = [_attempt_of(dice, t, ti) for ti in tis]
    return {"ti_ids": [*(ti.id for ti in tis), _GONE], "attempt_ids": [*attempts_of, dice.attempt_id()]}


def _claimed(dice: Dice, t: Tables) -> list[str]:
    given = [_attempt_of(dice, t, ti) or dice.attempt_id() for ti in _tis(dice, t)] + sorted(t.attempt)
    return dice.some(sorted(set(given)))


def _columns(rows: Sequence[tuple[Any, ...]], *names: str) -> Parameters:
    return {name: [row[number] for row in rows] for number, name in enumerate(names)}


@asked_with(database._NOW)
def _nothing(dice: Dice, t: Tables) -> Parameters:
    return {}


@asked_with(
    recovery._SELECT_IN_FLIGHT, runs._SELECT_WINDOW, runs._SELECT_CUT_SHORT, clearing._SELECT_TO_CANCEL, jobs._SELECT,
    jobs._PAUSE, jobs._REQUEST_CANCEL,
)  # fmt: skip
def _a_job(dice: Dice, t: Tables) -> Parameters:
    return {"job_id": _maybe_job_id(dice, t)}


@asked_with(task_instances._SELECT_OF_RUNS, clearing._UNSCHEDULE_CLOSED)
def _some_runs(dice: Dice, t: Tables) -> Parameters:
    return {"dag_run_ids": _run_ids(dice, t)}


@asked_with(
    task_instances._SELECT, task_instances._SELECT_REPORTED, task_instances._UNSCHEDULE,
    recovery._SELECT_HOSTS, report._SELECT_ERROR_TEXTS,
)  # fmt: skip
def _some_task_instances(dice: Dice, t: Tables) -> Parameters:
    return {"ti_ids": [ti.id for ti in _tis(dice, t)] + [_GONE]}


@asked_with(task_instances._SCHEDULE)
def _schedule(dice: Dice, t: Tables) -> Parameters:
    return {"waiting": _some_task_instances(dice, t)["ti_ids"]}


@asked_with(task_instances._TAKE_BACK, recovery._LOCK_UNCLAIMED)
def _some_attempts(dice: Dice, t: Tables) -> Parameters:
    return _pairs(dice, t)


@asked_with(
    claims._UNCLAIM, attempts._GIVE_UP_HEARTBEATS, attempts._SELECT_CANCELLED, attempts._HAND_BACK
)  # fmt: skip
def _claimed_attempts(dice: Dice, t: Tables) -> Parameters:
    return {"attempt_ids": _claimed(dice, t)}


# -- catalogue, jobs, leases --------------------------------------------------------------------------------------------


@asked_with(dags._TOUCH_DAG)
def _touch_dag(dice: Dice, t: Tables) -> Parameters:
    return {"dag_id": dice.choice([*DAGS, "new"]), "fileloc": dice.or_none("new.py")}


@asked_with(job_rows._INSERT)
def _insert_job(dice: Dice, t: Tables) -> Parameters:
    new = job_rows.NewJob("BackfillJob", dice.choice(DAGS), {"a": [1]}, None, {}, 3, dice.often(), "here", "me")
    return {**new._asdict(), "state": JobState.QUEUED.value}


@asked_with(leases._CLAIM)
def _claim_lease(dice: Dice, t: Tables) -> Parameters:
    states = list(ACTIVE_JOB) if dice.often() else [JobState.QUEUED]
    return {"job_id": _maybe_job_id(dice, t), "holder": "another", "timeout": _TIMEOUT, "from_states": states}


@asked_with(leases._RENEW, leases._FENCE, leases._RELEASE)
def _held_lease(dice: Dice, t: Tables) -> Parameters:
    job_id = _maybe_job_id(dice, t)
    is_right = job_id in t.job and dice.often()
    return {"job_id": job_id, "epoch": t.job[job_id].lease_epoch if is_right else dice.randint(0, 3)}


@asked_with(leases._FENCE_AND_LOCK)
def _fence_and_lock(dice: Dice, t: Tables) -> Parameters:
    return {**_held_lease(dice, t), **_lock(dice, t)}


@asked_with(jobs._SET_STATE)
def _set_job_state(dice: Dice, t: Tables) -> Parameters:
    return {
        **_held_lease(dice, t),
        **({} if dice.often() else {"epoch": None}),
        "from_states": list(ACTIVE_JOB) if dice.often() else [JobState.RUNNING],
        "to_state": dice.choice(list(JobState)),
        "error": dice.or_none("it broke again"),
    }


# -- dates and runs -----------------------------------------------------------------------------------------------------


@asked_with(dates._OWN)
def _own_dates(dice: Dice, t: Tables) -> Parameters:
    planned = [
        (DAYS + 1 + day, date := FIRST + day * DAY, date, date + DAY, "create", dice.or_none(min(t.run, default=None)))
        for day in dice.some(range(-1, DAYS + 1))
    ]
    names = ("ordinals", "logical_dates", "starts", "ends", "actions", "dag_run_ids")
    return {"job_id": _job_id(dice, t), "dag_id": dice.choice(DAGS), **_columns(planned, *names)}


@asked_with(dates._SELECT_PENDING)
def _pending(dice: Dice, t: Tables) -> Parameters:
    dag_id = None if dice.often() else dice.choice(DAGS)
    return {"job_id": _job_id(dice, t), "dag_id": dag_id, "limit": dice.or_none(dice.randint(0, 2))}


@asked_with(runs._ADMIT)
def _admit(dice: Dice, t: Tables) -> Parameters:
    ordinals = dice.sample(range(DAYS), DAYS) if dice.often() else dice.some(range(DAYS))
    conf = dice.or_none(json.dumps({"given": True}))
    return {"job_id": _job_id(dice, t), "dag_id": dice.choice(DAGS[:2]), "ordinals": ordinals, "conf": conf}


@asked_with(alignment._ALIGN_EXISTING, alignment._CREATE_MISSING)
def _templates(dice: Dice, t: Tables) -> Parameters:
    wanted = [
        alignment.TaskTemplate(
            task_id,
            -1,
            dice.randint(0, 2),
            dice.choice(POOLS),
            dice.randint(1, 2),
            dice.choice(["default", "other"]),
            dice.choice(["celery", "local"]),
            "SubDagOperator" if task_id == "sub" else "BashOperator",
            dice.randint(1, 2),
            dynamic=task_id == "each",
        )
        for task_id in dice.some(TASKS)
    ]
    if dice.often():
        wanted = [each for template in wanted for each in _literally_mapped(dice, template)]
    return {
        **alignment._template_arrays(wanted),
        "dag_run_ids": _run_ids(dice, t),
        "is_subset": dice.often(),
    }


def _literally_mapped(dice: Dice, template: alignment.TaskTemplate) -> list[alignment.TaskTemplate]:
    if template.task_id != "each" or dice.often():
        return [template]
    return [template._replace(map_index=index, dynamic=False) for index in range(dice.randint(1, 4))]


@asked_with(runs._LOCK)
def _lock_runs(dice: Dice, t: Tables) -> Parameters:
    return {"dag_run_ids": [*_run_ids(dice, t), _GONE]}


@asked_with(runs._COUNT_RUNNING)
def _count_running(dice: Dice, t: Tables) -> Parameters:
    return {"dag_id": dice.choice(DAGS), "job_id": dice.or_none(_job_id(dice, t))}


@asked_with(runs._LOCK)
def _lock_runs(dice: Dice, t: Tables) -> Parameters:
    return {"dag_run_ids": [*_run_ids(dice, t), _GONE]}


@asked_with(runs._FINISH)
def _finish_runs(dice: Dice, t: Tables) -> Parameters:
    run_ids = [*_run_ids(dice, t), _GONE]
    states = [dice.choice(["success", "failed", "failed", "running"]) for _ in run_ids]
    seen = [(ti.id, ti.state if not dice.rarely() else "none") for ti in _tis(dice, t)[:3]]
    return {"dag_run_ids": run_ids, "states": states, **_columns(seen, "ti_ids", "ti_states")}


@asked_with(giving_way._GIVE_BACK)
def _give_back(dice: Dice, t: Tables) -> Parameters:
    admitted = {date.dag_run_id for date in _in_order(t.date) if date.active and date.progress == "admitted"}
    running = [run.id for run in _in_order(t.run) if run.state == "running" and run.job_id and run.id in admitted]
    idle = [run_id for run_id in running if not any(ti.state in IN_FLIGHT for ti in t.tis_of([run_id]))]
    run_id = dice.choice((idle if dice.often() else running) or [*_run_ids(dice, t), _GONE])
    job_id = t.run[run_id].job_id if run_id in t.run and dice.often() else _job_id(dice, t)
    earlier_id = dice.choice([*_run_ids(dice, t), _GONE]) if dice.rarely() else None
    return {"job_id": job_id, "dag_run_id": run_id, "earlier_id": earlier_id}


@asked_with(previous._SELECT_PREVIOUS)
def _previous(dice: Dice, t: Tables) -> Parameters:
    of_dag = dice.choice(DAGS)
    task_ids = dice.some(TASKS) if dice.often() else []
    run_ids = [run.id for run in _in_order(t.run) if run.dag_id == of_dag]
    return {"dag_id": of_dag, "dag_run_ids": [*dice.some(run_ids), _GONE], "task_ids": task_ids}


# -- task instances -----------------------------------------------------------------------------------------------------


@asked_with(task_instances._LOCK)
def _lock(dice: Dice, t: Tables) -> Parameters:
    return {"dag_ids": sorted(dice.some(sorted(t.dag) if dice.often() else DAGS)), "pools": sorted(dice.some(POOLS))}


@asked_with(leases._FENCE_AND_LOCK)
def _fence_and_lock(dice: Dice, t: Tables) -> Parameters:
    return {**_held_lease(dice, t), **_lock(dice, t)}


@asked_with(task_instances._SELECT_OCCUPANCY)
def _occupancy(dice: Dice, t: Tables) -> Parameters:
    some = {"dag_ids": dice.some(DAGS)[:1], "pools": dice.some(POOLS)[:1]}
    return {**some, "apart": dice.or_none(dice.some(TASKS))}


@asked_with(task_instances._QUEUE)
def _queue(dice: Dice, t: Tables) -> Parameters:
    tis = dice.sample(_in_order(t.ti), len(t.ti))
    wanted, waiting = tis[len(tis) // 4 :], tis[: len(tis) // 4]
    given = [(ti.id, dice.attempt_id(), dice.choice(POOLS), dice.choice(["celery", "local"])) for ti in wanted]
    columns = _columns(given, "ti_ids", "attempt_ids", "pools", "executors")
    return {"job_id": 1 if dice.often() else 2, **columns, "waiting": [ti.id for ti in waiting]}


@asked_with(task_instances._SETTLE)
def _settle(dice: Dice, t: Tables) -> Parameters:
    states = ["success", "skipped", "upstream_failed"]
    given = [(ti.id, dice.choice(states), dice.or_none("so")) for ti in _in_order(t.ti)]
    return _columns(given, "ti_ids", "states", "errors")


@asked_with(recovery._SELECT_ZOMBIES)
def _zombies(dice: Dice, t: Tables) -> Parameters:
    return {"job_id": _job_id(dice, t), "timeout": _TIMEOUT}


@asked_with(recovery._SWEEP)
def _sweep(dice: Dice, t: Tables) -> Parameters:
    timeouts = {"heartbeat_timeout": _TIMEOUT, "queued_timeout": 3 * _TIMEOUT}
    return {"job_id": _job_id(dice, t), "dag_run_ids": _run_ids(dice, t), **timeouts}


@asked_with(recovery._SELECT_HOLDERS)
def _holders(dice: Dice, t: Tables) -> Parameters:
    return {"job_id": _job_id(dice, t), **_some_task_instances(dice, t)}


@asked_with(recovery._FAIL)
def _fail(dice: Dice, t: Tables) -> Parameters:
    pairs = _pairs(dice, t)
    number = len(pairs["ti_ids"])
    delays = [dice.or_none(timedelta(seconds=7)) for _ in range(number)]
    return {**pairs, "errors": [f"lost {each}" for each in range(number)], "retry_delays": delays}


@asked_with(recovery._LOSE)
def _lose(dice: Dice, t: Tables) -> Parameters:
    pairs = _pairs(dice, t)
    number = len(pairs["ti_ids"])
    charged = [dice.often() for _ in range(number)]
    return {**pairs, "errors": [f"lost {each}" for each in range(number)], "charged": charged}


@asked_with(recovery._RESET_ORPHANS)
def _reset_orphans(dice: Dice, t: Tables) -> Parameters:
    held = [ti.external_executor_id for ti in _in_order(t.ti) if ti.external_executor_id is not None and dice.rarely()]
    only = None if dice.often() else dice.choice(sorted(t.run))
    return {"job_id": _job_id(dice, t), "lease_timeout": _TIMEOUT, "held": held, "dag_run_id": only}


# -- workers ------------------------------------------------------------------------------------------------------------


@asked_with(claims._CLAIM)
def _claim(dice: Dice, t: Tables) -> Parameters:
    given = [
        (ti.id, _attempt_of(dice, t, ti) or dice.attempt_id(), ti.try_number + dice.rarely())
        for ti in dice.sample(_in_order(t.ti), len(t.ti))
    ]
    return {**_columns(given, "ids", "attempts", "tries"), "hostname": "worker 3", "pid": 3}


@asked_with(attempts._RENEW_HEARTBEATS)
def _renew(dice: Dice, t: Tables) -> Parameters:
    given = [(each, dice.choice([None, timedelta(seconds=5), 40 * _TIMEOUT])) for each in _claimed(dice, t)]
    return _columns(given, "attempt_ids", "started_ago")


@asked_with(attempts._FINISH)
def _finish(dice: Dice, t: Tables) -> Parameters:
    given = [_end(dice, ti.id, _attempt_of(dice, t, ti) or dice.attempt_id()) for ti in _in_order(t.ti)]
    ends = attempts._in_order_of_id(given)
    pushed = [
        (end.attempt_id, key, json.dumps(value))
        for end in ends
        for key, value in (("return_value", [1, 2]), ("another", "text"))
        if dice.rarely()
    ]
    return {**attempts._finish_columns(ends), **attempts._xcom_columns(pushed)}


def _end(dice: Dice, ti_id: int, attempt_id: str) -> attempts.Finish:
    state = dice.choice(sorted(attempts._FINISHES))
    return attempts.Finish(
        ti_id,
        attempt_id,
        state,
        error=dice.or_none("as it goes"),
        retry_delay=timedelta(seconds=7) if state == "up_for_retry" else None,
        reschedule_date=NOW + DAY if state == "up_for_reschedule" else None,
        skips=dice.choice([None, [], ["two"]]),
        started_ago=dice.choice([None, timedelta(seconds=5), 40 * _TIMEOUT]),
        ended_ago=dice.choice([timedelta(0), timedelta(seconds=1), 40 * _TIMEOUT]),
    )


# -- what ends a run early ----------------------------------------------------------------------------------------------


@asked_with(attempts._STOP_RUN)
def _stop_run(dice: Dice, t: Tables) -> Parameters:
    return {"dag_run_id": dice.choice(sorted(t.run)), "spared_task_ids": dice.some(TASKS)[:1], "error": "stopped"}


@asked_with(runs._SELECT_TIMED_OUT)
def _overdue(dice: Dice, t: Tables) -> Parameters:
    return {"dag_run_ids": _run_ids(dice, t), "timeout": dice.choice([1, 3]) * timedelta(seconds=10)}


@asked_with(clearing._TIME_OUT)
def _time_out(dice: Dice, t: Tables) -> Parameters:
    return {"dag_run_ids": _run_ids(dice, t), "error": "dagrun_timeout of 3:00 is over"}


# -- clearing, cancelling, mappings -------------------------------------------------------------------------------------


@asked_with(clearing._CLEAR)
def _clear(dice: Dice, t: Tables) -> Parameters:
    retries = {task_id: dice.randint(0, 2) for task_id in dice.some(TASKS)}
    return {
        "dag_run_ids": _run_ids(dice, t),
        "task_ids": list(retries),
        "retries": list(retries.values()),
        "states": sorted({*clearing.CLEARED_FROM, "running", "removed"} if dice.often() else FINISHED),
        "ti_ids": None if dice.often() else [ti.id for ti in _tis(dice, t)],
        "timeout": dice.or_none(_TIMEOUT),
    }


@asked_with(clearing._CANCEL)
def _cancel(dice: Dice, t: Tables) -> Parameters:
    return {**_pairs(dice, t), "error": "cancelled"}


@asked_with(mapping._EXPAND)
def _expand(dice: Dice, t: Tables) -> Parameters:
    template = alignment.TaskTemplate("each", -1, 2, "narrow", 1, "other", "celery", "BashOperator", 2, dynamic=True)
    expanded = sorted({ti.dag_run_id for ti in t.ti.values() if ti.task_id == "each"}) or sorted(t.run)
    return {**template._asdict(), "dag_run_id": dice.choice(expanded), "length": dice.choice([0, 0, 1, 2, 3, 4])}


@asked_with(mapping._GROW)
def _grow(dice: Dice, t: Tables) -> Parameters:
    return {**_expand(dice, t), "at_once": dice.randint(1, 2)}


@asked_with(mapping._SELECT_EXPANDED)
def _expanded(dice: Dice, t: Tables) -> Parameters:
    return {"dag_run_id": dice.choice(sorted(t.run)), "task_id": dice.choice(["each", "each", "one"])}


@asked_with(mapping._SELECT_LENGTHS)
def _lengths(dice: Dice, t: Tables) -> Parameters:
    return {"dag_run_id": dice.choice(sorted(t.run)), "task_ids": dice.some(TASKS)}


# -- what is said of a job ----------------------------------------------------------------------------------------------


@asked_with(report._JOB_COUNTS, report._DEPARTED, report._FAILURES)
def _of_tasks(dice: Dice, t: Tables) -> Parameters:
    return {"job_id": _job_id(dice, t), "task_ids": dice.or_none(dice.some(TASKS))}


@asked_with(report._SELECT_ERRORS)
def _errors(dice: Dice, t: Tables) -> Parameters:
    order = [(None if dice.often() else "alpha.sub", task_id) for task_id in dice.some(TASKS)]
    return {**_of_tasks(dice, t), **_columns(order, "order_dags", "order")}


@asked_with(report._SELECT_TIMED_OUT)
def _timed_out(dice: Dice, t: Tables) -> Parameters:
    return {"job_id": _job_id(dice, t), "beginning": clearing.RUN_TIMED_OUT}


@asked_with(report._SELECT_RUNNING)
def _running(dice: Dice, t: Tables) -> Parameters:
    return {"job_id": _job_id(dice, t), "limit": dice.or_none(dice.randint(1, 3))}


@asked_with(report._FINISHED_SINCE)
def _finished_since(dice: Dice, t: Tables) -> Parameters:
    return {"job_id": _job_id(dice, t), "window": 2 * _TIMEOUT}
