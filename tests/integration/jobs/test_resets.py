"""`--reset-dagruns`: what is chosen in the range is cleared with the job's creation, if whoever is asked agrees."""

from datetime import timedelta

import pytest
from playhouse import SilentExecutor, dag_of, day
from sqlalchemy import select

from backfill.exceptions import DateOwned, Declined, RefusedError, UnknownPool
from backfill.jobs import BackfillJob
from backfill.jobs.creation import create
from backfill.jobs.request import BackfillRequest
from backfill.models import dag_run, job
from backfill.store.dates import pending_dates

DONE = {"a": "success", "b": "failed"}


class Asked:
    """Whoever is asked: agrees, and remembers what it was asked."""

    def __init__(self, refuses=False):
        self.told, self.refuses = [], refuses

    def __call__(self, scope, count):
        self.told.append(str(count))
        if self.refuses:
            raise Declined("no")


def reset(house, dag, days=2, asked=None, **request):
    """Create a job that resets, submitted."""
    wanted = BackfillRequest(start_date=day(1), end_date=day(days), executor="local", **request)
    cast = BackfillJob.from_request(dag, wanted)
    return create(
        cast,
        house.engine,
        house.stage.settings,
        frozen=None,
        dag_source={},
        holder=None,
        confirm_reset=asked or Asked(),
    )


def everything(house):
    with house.engine.connect() as tx:
        return tx.execute(select(dag_run).order_by(dag_run.c.id)).all(), house.states(), tx.execute(select(job)).all()


def test_what_is_cleared_is_named_first_and_noted_then(house):
    house.plant_run(1, DONE, state="failed")
    house.plant_run(2, DONE, run_type="manual")
    house.plant_run(3, DONE)
    asked = Asked()
    created = reset(house, dag_of("a", "b < a"), asked=asked)
    assert asked.told == ["4 task instances in 2 runs"]
    assert created.notes == ("Cleared 4 task instances in 2 runs first.",)
    assert house.runs() == {1: "queued", 2: "queued", 3: "success"}
    assert house.states() == {"a1": "none", "b1": "none", "a2": "none", "b2": "none", "a3": "success", "b3": "failed"}


def test_a_run_between_the_run_dates_is_in_the_range_too(house):
    house.plant_run(1, DONE)
    house.set_run(1, logical_date=day(1) + timedelta(hours=12), run_type="manual")
    reset(house, dag_of("a", "b < a"))
    assert set(house.states().values()) == {"none"}


def test_only_chosen_tasks_are_cleared(house):
    house.plant_run(1, {"a": "success", "b": "success", "c": "success"})
    reset(house, dag_of("a", "b < a", "c < b"), task_regex="^b$")
    assert house.states() == {"a1": "none", "b1": "none", "c1": "success"}


@pytest.mark.parametrize("reprocess", [None, "failed", "completed"])
def test_runs_that_were_done_are_taken_as_they_are_now(house, reprocess):
    house.plant_run(1, DONE, state="failed")
    house.plant_run(2, {"a": "success", "b": "success"})
    created = reset(house, dag_of("a", "b < a"), reprocess=reprocess)
    with house.engine.connect() as tx:
        assert [date.action for date in pending_dates(tx, created.job_id, None)] == ["take", "take"]


def test_nothing_to_clear_asks_nobody_and_a_repetition_finds_nothing(house):
    house.plant_run(1, {"a": "none"}, state="queued")
    asked = Asked(refuses=True)
    assert reset(house, dag_of("a"), asked=asked).notes == ()
    assert asked.told == []


def test_no_changes_nothing(house):
    house.plant_run(1, DONE, state="failed")
    before = everything(house)
    with pytest.raises(Declined):
        reset(house, dag_of("a", "b < a"), asked=Asked(refuses=True))
    assert everything(house) == before


@pytest.mark.parametrize(
    ("request_", "error"), [({"pool": "nope"}, UnknownPool), ({"run_backwards": True}, RefusedError), ({}, DateOwned)]
)
def test_a_refused_job_clears_nothing_and_asks_nobody(house, request_, error):
    dag, asked = dag_of("a", arguments={"a": {"depends_on_past": True}}), Asked()
    for number in (1, 2):
        house.plant_run(number, {"a": "success"})
    if error is DateOwned:
        house.put_on(dag, SilentExecutor(), (2, 2))
    before = everything(house)
    with pytest.raises(error):
        reset(house, dag, asked=asked, **request_)
    assert everything(house) == before
    assert asked.told == []


def test_a_date_that_another_job_takes_while_the_question_is_open_keeps_everything_as_it_was(house):
    dag = dag_of("a")
    house.plant_run(1, {"a": "success"})

    def take_it(scope, count):
        house.put_on(dag, SilentExecutor(), (2, 2))

    with pytest.raises(DateOwned):
        reset(house, dag, asked=take_it)
    assert house.states() == {"a1": "success"}
    assert house.runs() == {1: "success"}
