import pytest
from hypothesis import given, strategies as st

from backfill.facts import RunFacts, TaskInstanceFacts
from backfill.jobs import BackfillJob
from backfill.jobs.task_status import DagRunTaskStatus, TaskInstance
from backfill.keys import TaskInstanceKey
from backfill.states import IDLE, IN_FLIGHT, TaskInstanceState

BUCKETS = ("to_run", "running", "skipped", "succeeded", "failed", "not_ready", "deadlocked")


def task_instance(name: str, state: str, try_number: int = 0) -> TaskInstance:
    facts = TaskInstanceFacts(hash(name), 1, name, -1, state, try_number, 0, False, None, None, 0, None)
    return TaskInstance(TaskInstanceKey("d", name, "r"), facts)


def buckets_of(status: DagRunTaskStatus, key: TaskInstanceKey) -> list[str]:
    return [name for name in BUCKETS if key in getattr(status, name)]


@pytest.mark.parametrize(
    ("states", "bucket"),
    [
        (IDLE, "to_run"),
        (IN_FLIGHT, "running"),
        ({"success"}, "succeeded"),
        ({"skipped"}, "skipped"),
        ({"failed", "upstream_failed"}, "failed"),
    ],
)
def test_a_task_instance_is_sorted_by_the_state_of_its_row(states, bucket):
    for state in states:
        status = DagRunTaskStatus()
        ti = task_instance("t", state)
        status.sort(ti)
        assert buckets_of(status, ti.key) == [bucket]


def test_a_removed_task_instance_is_in_no_bucket():
    status = DagRunTaskStatus()
    status.sort(task_instance("t", "success"))
    status.sort(task_instance("t", "removed"))
    assert buckets_of(status, TaskInstanceKey("d", "t", "r")) == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(sorted(TaskInstanceState)), st.integers(0, 5))))
def test_each_key_is_in_exactly_one_bucket_whatever_states_it_passes_and_whatever_its_try(steps):
    status = DagRunTaskStatus()
    last = {}
    for name, state, number in steps:
        ti = task_instance(name, state, number)
        status.sort(ti)
        last[ti.key] = state
    for key, state in last.items():
        assert len(buckets_of(status, key)) == (state != TaskInstanceState.REMOVED)


def test_buckets_that_are_given_are_used():
    ti = task_instance("t", "running")
    running = {ti.key: ti}
    status = BackfillJob._DagRunTaskStatus(running=running, total_runs=3)
    assert status.running is running
    assert status.total_runs == 3
    status.sort(task_instance("t", "success"))
    assert running == {}


def test_a_run_that_leaves_takes_its_keys_along_and_leaves_its_numbers():
    run = RunFacts(1, "d", "r", None, None, None, "running", "backfill", {}, None, 0)
    status = DagRunTaskStatus(active_runs={1: run})
    done = [task_instance("a", "success"), task_instance("b", "upstream_failed")]
    for ti in done:
        status.sort(ti)
    status.let_go(run, done)
    assert not any(buckets_of(status, ti.key) for ti in done)
    assert status.departed == {TaskInstanceState.SUCCESS: 1, TaskInstanceState.UPSTREAM_FAILED: 1}
    assert status.finished_runs == 1
    assert not status.active_runs


def test_states_that_count_as_running_are_queued_and_running():
    assert set(BackfillJob.STATES_COUNT_AS_RUNNING) == IN_FLIGHT
