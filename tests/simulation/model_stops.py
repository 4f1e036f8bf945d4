"""The model's answers to what ends a run before its tasks have: `fail_stop` and `dagrun_timeout`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from model_database import Row, Tables, answers
from model_runs import facts
from model_task_instances import close_attempt, elapsed, seconds

from backfill.states import UNFINISHED
from backfill.store import attempts, clearing, runs

_STOPPED = {*UNFINISHED, "upstream_failed"}


def _is_chosen(t: Tables, ti: Row) -> bool:
    """Return whether the job that drives the run wants the task at all (S13.6)."""
    job = t.job.get(t.run[ti.dag_run_id].job_id)
    if job is None or "task_ids" not in job.params or job.dag_id != ti.dag_id:
        return True
    return ti.task_id in (job.params["task_ids"] or ())


@answers(attempts._STOP_RUN)
def stop_run(t: Tables, now: datetime, *, dag_run_id: int, spared_task_ids: Collection[str], error: str) -> list[Any]:
    stopped: list[Any] = []
    for ti in t.tis_of([dag_run_id]):
        if ti.task_id in spared_task_ids or ti.state not in _STOPPED or not _is_chosen(t, ti):
            continue
        if ti.state == "running":
            changed = {"state": "failed", "error": error, "duration": elapsed(ti.start_date, now)}
            close_attempt(t, ti.external_executor_id, now, "failed", error)
            stopped.append((ti.id, "failed", ti.external_executor_id))
        else:
            changed = {"state": "skipped", "start_date": now, "duration": 0.0}
            stopped.append((ti.id, "skipped", None))
        t.change("ti", ti.id, **changed, end_date=now, next_attempt_at=None, try_open=False)
    return stopped


@answers(runs._SELECT_TIMED_OUT)
def lock_timed_out(t: Tables, now: datetime, *, dag_run_ids: Collection[int], timeout: timedelta) -> list[Any]:
    return [
        (run.id,)
        for _, run in sorted(t.run.items())
        if run.id in dag_run_ids and run.state == "running" and run.start_date is not None
        if seconds(run.start_date, now) - run.idle_seconds > timeout.total_seconds()
    ]


@answers(clearing._TIME_OUT)
def time_out(t: Tables, now: datetime, *, dag_run_ids: Sequence[int], error: str) -> list[Any]:
    timed_out = []
    for ti in t.tis_of(dag_run_ids):
        if ti.state not in UNFINISHED or not _is_chosen(t, ti):
            continue
        start = (ti.start_date or now) if ti.state == "running" else now
        attempt = t.attempt.get(ti.external_executor_id)
        if attempt is not None and attempt.end_date is None:
            close_attempt(t, ti.external_executor_id, now, "skipped", error)
        changed = t.change(
            "ti",
            ti.id,
            state="skipped",
            try_open=False,
            external_executor_id=None,
            next_attempt_at=None,
            skips=None,
            start_date=start,
            end_date=now,
            duration=seconds(start, now),
            error=error,
        )
        timed_out.append(facts(changed))
    return timed_out
