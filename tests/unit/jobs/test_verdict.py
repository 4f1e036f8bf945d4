import pytest

from backfill.facts import TaskInstanceFacts
from backfill.jobs.verdict import OVER, Budget, Failed, Lost, judge, lost
from backfill.keys import TaskInstanceKey
from backfill.messages import ExecutorEvent
from backfill.states import IN_FLIGHT, TaskInstanceState

ATTEMPT = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
KEY = TaskInstanceKey("sales", "load", "backfill__2024-01-01T00:00:00+00:00")
BUDGET = Budget(infrastructure_retries=3, disable_retry=False)


def row(
    state: str = "running",
    *,
    attempt: str | None = ATTEMPT,
    try_number: int = 1,
    max_tries: int = 0,
    lost_so_far: int = 0,
):
    return TaskInstanceFacts(7, 1, "load", -1, state, try_number, max_tries, True, attempt, None, lost_so_far, None)


def event(
    state: TaskInstanceState = TaskInstanceState.FAILED, *, infrastructure: bool = False, info: str | None = None
):
    return ExecutorEvent(7, ATTEMPT, state, info, infrastructure)


@pytest.mark.parametrize("lost_so_far", [0, 2, 3, 9])
def test_what_was_lost_in_company_is_lost_at_no_cost_whatever_is_left_of_the_budget(lost_so_far):
    said = ExecutorEvent(7, ATTEMPT, TaskInstanceState.FAILED, "gone", infrastructure=True, alone=True)
    verdict = judge(said, row(lost_so_far=lost_so_far), KEY, budget=BUDGET, retries=0)
    assert isinstance(verdict, Lost)
    assert not verdict.charged


@pytest.mark.parametrize("state", sorted(set(TaskInstanceState) - IN_FLIGHT))
def test_a_row_that_is_no_longer_in_flight_decides(state):
    assert judge(event(), row(state), KEY, budget=BUDGET, retries=3) is None


@pytest.mark.parametrize("attempt", [OTHER, None])
def test_an_event_of_another_attempt_is_stale(attempt):
    assert judge(event(), row(attempt=attempt), KEY, budget=BUDGET, retries=3) is None


@pytest.mark.parametrize("state", sorted(set(TaskInstanceState) - OVER))
def test_an_event_that_does_not_say_that_the_attempt_is_over_only_informs(state):
    assert judge(event(state), row(), KEY, budget=BUDGET, retries=3) is None


@pytest.mark.parametrize("said", [TaskInstanceState.FAILED, TaskInstanceState.SUCCESS])
@pytest.mark.parametrize("state", sorted(IN_FLIGHT))
def test_an_attempt_that_is_over_while_its_row_is_in_flight_has_failed(said, state):
    verdict = judge(event(said), row(state), KEY, budget=BUDGET, retries=0)
    assert isinstance(verdict, Failed)
    assert not verdict.retry


def test_the_message_names_the_task_instance_the_try_both_states_and_what_the_executor_said():
    verdict = judge(event(info="exit code 3"), row(try_number=2), KEY, budget=BUDGET, retries=0)
    for part in ("sales.load", KEY.run_id, "try 2", "failed", "running", "exit code 3"):
        assert part in verdict.error


def test_it_is_retried_while_tries_are_left():
    assert judge(event(), row(try_number=2, max_tries=2), KEY, budget=BUDGET, retries=2).retry
    assert not judge(event(), row(try_number=3, max_tries=2), KEY, budget=BUDGET, retries=2).retry


def test_it_is_not_retried_with_disable_retry():
    budget = Budget(infrastructure_retries=3, disable_retry=True)
    assert not judge(event(), row(try_number=1, max_tries=2), KEY, budget=budget, retries=2).retry


def test_an_infrastructure_failure_within_its_budget_costs_no_retry():
    assert isinstance(judge(event(infrastructure=True), row(lost_so_far=2), KEY, budget=BUDGET, retries=0), Lost)


def test_beyond_the_budget_it_is_an_ordinary_failure():
    verdict = judge(event(infrastructure=True), row(lost_so_far=3, max_tries=1), KEY, budget=BUDGET, retries=1)
    assert isinstance(verdict, Failed)
    assert verdict.retry


def test_what_the_sweep_finds_is_an_infrastructure_failure_of_the_attempt_in_the_row():
    assert lost(row(), "gone") == ExecutorEvent(7, ATTEMPT, TaskInstanceState.FAILED, "gone", infrastructure=True)
