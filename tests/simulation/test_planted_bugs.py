"""The simulation is worth its time only if it finds bugs: each of these, planted, must be found within a few hundred worlds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any
from unittest import mock

import model_database
import pytest
from test_early_ends import FailStop, RunTimeout
from test_simulation import Disturbed, HandledByOperators, play
from test_two_jobs import TwoJobs

from backfill.jobs.base_job import Workplace
from backfill.jobs.reconcile import Reconciler
from backfill.store import attempts, claims, leases, recovery, runs, task_instances

Bug = Callable[[], AbstractContextManager[Any]]


@contextmanager
def answered_otherwise(statement: Any, change: Callable[..., Any]) -> Iterator[None]:
    """Let `change`, given the true answerer and what that is given, answer `statement`."""
    known, answerer = model_database._ANSWERERS[id(statement)]
    model_database._ANSWERERS[id(statement)] = (known, lambda t, now, **given: change(answerer, t, now, **given))
    try:
        yield
    finally:
        model_database._ANSWERERS[id(statement)] = (known, answerer)


@contextmanager
def writes_without_lease() -> Iterator[None]:
    def write(self: Any, work: Any, session: Any = None) -> Any:
        return self._transact(self.engine, work, session)

    def write_under_limits(self: Any, work: Any, dag_ids: Any, pools: Any, session: Any = None) -> Any:
        return write(self, lambda tx: work(tx, task_instances.lock_limits(tx, dag_ids, pools)), session)

    with mock.patch.multiple(Workplace, write=write, write_under_limits=write_under_limits):
        yield


def takes_any_lease() -> Any:
    def change(answer: Any, t: Any, now: Any, **given: Any) -> Any:
        return answer(t, now, **{**given, "timeout": timedelta(seconds=-1)})

    return answered_otherwise(leases._CLAIM, change)


def claims_what_runs() -> Any:
    def change(answer: Any, t: Any, now: Any, **given: Any) -> Any:
        for ti_id, attempt_id in zip(given["ids"], given["attempts"], strict=True):
            if t.ti[ti_id].state == "running" and t.ti[ti_id].external_executor_id == attempt_id:
                t.change("ti", ti_id, state="queued")
        return answer(t, now, **given)

    return answered_otherwise(claims._CLAIM, change)


def calls_zombies_dead_too_early() -> Any:
    def change(answer: Any, t: Any, now: Any, **given: Any) -> Any:
        return answer(t, now, **{**given, "heartbeat_timeout": timedelta(seconds=4)})

    return answered_otherwise(recovery._SWEEP, change)


def resets_what_runs() -> Any:
    def change(answer: Any, t: Any, now: Any, **given: Any) -> Any:
        for ti in [ti for ti in t.ti.values() if ti.state == "running"]:
            t.change("ti", ti.id, state="queued")
        return answer(t, now, **given)

    return answered_otherwise(recovery._RESET_ORPHANS, change)


def losses_cost_a_try() -> Any:
    def change(answer: Any, t: Any, now: Any, **given: Any) -> Any:
        found = answer(t, now, **given)
        for (ti_id,) in found:
            t.change("ti", ti_id, try_open=False)
        return found

    return answered_otherwise(recovery._LOSE, change)


def never_sweeps() -> Any:
    return mock.patch.object(Reconciler, "sweep", return_value=[])


def ignores_limits() -> Any:
    return answered_otherwise(task_instances._SELECT_OCCUPANCY, lambda answer, t, now, **given: [])


def overwrites_what_was_set_by_hand() -> Any:
    def change(answer: Any, t: Any, now: Any, **given: Any) -> Any:
        for ti_id in given["ti_ids"]:
            if t.ti[ti_id].state == "success":
                t.change("ti", ti_id, state="none")
        return answer(t, now, **given)

    return answered_otherwise(task_instances._QUEUE, change)


def counts_the_places_of_one_job_only() -> Any:
    def change(answer: Any, t: Any, now: Any, **given: Any) -> Any:
        return [row for row in answer(t, now, **given) if row[-1] == 1]

    return answered_otherwise(task_instances._SELECT_OCCUPANCY, change)


def lets_the_rest_of_a_failed_run_go_on() -> Any:
    return answered_otherwise(attempts._STOP_RUN, lambda answer, t, now, **given: [])


def counts_idle_time_for_the_timeout() -> Any:
    def change(answer: Any, t: Any, now: Any, **given: Any) -> Any:
        idle = {run_id: t.run[run_id].idle_seconds for run_id in given["dag_run_ids"]}
        for run_id in idle:
            t.change("run", run_id, idle_seconds=0.0)
        found = answer(t, now, **given)
        for run_id, seconds in idle.items():
            t.change("run", run_id, idle_seconds=seconds)
        return found

    return answered_otherwise(runs._SELECT_TIMED_OUT, change)


@pytest.mark.parametrize(
    ("bug", "machine", "complaint"),
    [
        (writes_without_lease, Disturbed, "writes without the lease"),
        (takes_any_lease, Disturbed, "takes a lease that has not run out"),
        (claims_what_runs, Disturbed, "both run|moves|again"),
        (calls_zombies_dead_too_early, Disturbed, "both run"),
        (resets_what_runs, Disturbed, "from running to queued|both run"),
        (losses_cost_a_try, Disturbed, "without faults"),
        (never_sweeps, Disturbed, "does not come to its end|without faults"),
        (ignores_limits, Disturbed, "slots of|are in flight"),
        (overwrites_what_was_set_by_hand, HandledByOperators, "from success to queued"),
        (counts_the_places_of_one_job_only, TwoJobs, "slots of|are in flight"),
        (lets_the_rest_of_a_failed_run_go_on, FailStop, "its run goes on"),
        (counts_idle_time_for_the_timeout, RunTimeout, "before its time"),
    ],
)
@pytest.mark.slow
def test_a_planted_bug_is_found(bug: Bug, machine: type[Disturbed], complaint: str) -> None:
    with bug(), pytest.raises(AssertionError, match=complaint):
        play(machine, 1200, derandomize=True, shrink=False)
