import pytest

from backfill.exceptions import UsageError
from backfill.jobs.policy import StopPolicy, failure_budget
from backfill.jobs.request import BackfillRequest


def policy(planned: int = 100, **request: object) -> StopPolicy:
    return StopPolicy(BackfillRequest(**request), planned=planned)


def test_without_a_policy_the_first_failure_ends_admission_but_not_dispatch():
    stop = policy()
    assert stop.admits
    stop.task_instance_ended_badly(itself=True)
    assert not stop.admits
    assert stop.dispatches
    assert stop.failed


def test_an_upstream_failure_is_a_failure_of_the_job_too():
    stop = policy()
    stop.task_instance_ended_badly(itself=False)
    assert stop.failed
    assert not stop.admits


def test_continue_on_failures_admits_whatever_fails_and_the_job_has_failed_all_the_same():
    stop = policy(continue_on_failures=True)
    for _ in range(50):
        stop.task_instance_ended_badly(itself=True)
    assert stop.admits
    assert stop.dispatches
    assert stop.failed
    assert stop.closes_stuck_runs


def test_max_failures_counts_only_what_failed_itself():
    stop = policy(max_failures="2")
    stop.task_instance_ended_badly(itself=False)
    stop.task_instance_ended_badly(itself=True)
    assert stop.admits
    assert stop.dispatches
    stop.task_instance_ended_badly(itself=True)
    assert not stop.admits
    assert not stop.dispatches


def test_a_run_that_timed_out_counts_as_one_failure_and_one_that_just_failed_as_none():
    stop = policy(max_failures="1")
    stop.run_failed()
    assert stop.dispatches
    stop.run_failed(timed_out=True)
    assert not stop.dispatches


def test_with_both_policies_the_budget_holds():
    stop = policy(max_failures="1", continue_on_failures=True)
    stop.task_instance_ended_badly(itself=True)
    assert not stop.admits


@pytest.mark.parametrize(
    ("text", "planned", "budget"),
    [("3", 1000, 3), ("5%", 100, 5), ("5%", 101, 6), ("1%", 10, 1), ("0.1%", 10, 1), ("50%", 3, 2)],
)
def test_a_percentage_is_of_the_planned_task_instances_rounded_up_and_at_least_one(text, planned, budget):
    assert failure_budget(text, planned) == budget


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "%", "1.5", "0%", "nan%", "inf%", "five"])
def test_anything_but_a_number_from_1_or_a_percentage_is_refused_by_name(text):
    with pytest.raises(UsageError, match="--max-failures"):
        failure_budget(text, 100)
