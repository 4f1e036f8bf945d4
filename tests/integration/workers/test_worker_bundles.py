"""Bundles in one worker process: chunks, what a long task does to those behind it, and who may take attempts out of its hands."""

import itertools
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from worker_stage import Stage, states

from backfill import DAG, get_current_context
from backfill.config import Settings
from backfill.exceptions import SkipTask
from backfill.messages import Attempt, ExecutorEvent
from backfill.models import job, task_attempt, task_instance
from backfill.operators import PythonOperator
from backfill.store.attempts import finish_if_current
from backfill.store.claims import Claim, claim_if_queued
from backfill.store.direct import DirectEngine
from workers import open_bundle
from workers.runner import Runner

WaitUntil = Callable[..., None]


class Events(list[ExecutorEvent]):
    """Keeps what the runner publishes, and what it published together."""

    def __init__(self) -> None:
        super().__init__()
        self.together: list[list[ExecutorEvent]] = []

    def publish(self, _stream: str, events: Sequence[ExecutorEvent]) -> None:
        self.extend(events)
        self.together.append(list(events))

    def of(self, attempt: Attempt) -> list[str]:
        return [str(event.state) for event in self if event.attempt_id == attempt.attempt_id]


@pytest.fixture
def events() -> Events:
    return Events()


class House:
    """A runner, and a DAG whose only task does on each day what the test says."""

    def __init__(self, engine: sa.Engine, settings: Settings, events: Events, wait_until: WaitUntil) -> None:
        self.engine = engine
        self.stopping = threading.Event()
        self.runner = Runner(engine, settings, events.publish, hostname="worker-1@host", stopping=self.stopping.is_set)
        self.began: list[str] = []
        self._deeds: dict[str, Callable[[], Any]] = {}
        self._settings = settings
        self._wait_until = wait_until
        self.stage = Stage(engine, settings, self._dag())
        self.runner._shared.dags._once(  # the DAG as it is here, not a copy: its task uses what the test has
            (self.stage.dag.dag_id, self._hash()), lambda: self.stage.dag
        )

    def on(self, day: int, deed: Callable[[], Any]) -> None:
        """Let the task do this on that day, and nothing on others."""
        self._deeds[f"2024-01-{day + 1:02}"] = deed

    def queue(self, days: int) -> list[Attempt]:
        return [self.stage.queue("load", day=day) for day in range(days)]

    def run(self, *attempts: Attempt) -> None:
        self.runner.run_bundle(self.stage.bundle(*attempts))

    def expect(self, seconds: float) -> None:
        """Let the runner believe that the task takes so long."""
        self.runner._durations.note(("sales", "load"), seconds)

    def wait_for(self, attempts: Sequence[Attempt], state: str) -> None:
        """Wait, within a task, until the rows of these say so."""
        self._wait_until(lambda: set(states(self.stage, attempts)) == {state}, f"the rows say {state}")

    def columns(self, attempts: Sequence[Attempt], *names: str) -> list[tuple[Any, ...]]:
        with self.engine.connect() as tx:
            statement = sa.select(*(task_instance.c[name] for name in ("id", *names)))
            found = {row[0]: tuple(row[1:]) for row in tx.execute(statement)}
        return [found[attempt.task_instance_id] for attempt in attempts]

    def histories(self) -> set[str]:
        """Return the attempts that have begun, by the history."""
        with self.engine.connect() as tx:
            return set(tx.execute(sa.select(task_attempt.c.attempt_id)).scalars())

    def _dag(self) -> DAG:
        def load(ds: str) -> Any:
            self.began.append(ds)
            return self._deeds.get(ds, lambda: None)()

        with DAG("sales", start_date=datetime(2024, 1, 1, tzinfo=UTC), schedule="@daily", fail_stop=True) as dag:
            PythonOperator(task_id="load", python_callable=Deed(load))
            PythonOperator(task_id="other", python_callable=Deed(load))
        return dag

    def _hash(self) -> str:
        with self.engine.connect() as tx:
            return str(tx.execute(sa.select(job.c.dag_pickle_hash)).scalar_one())


class Deed:
    """Calls a function that is not shipped with the DAG."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, ds: str) -> Any:
        return self._function(ds)

    def __reduce__(self) -> Any:
        return (Deed, (None,))


@pytest.fixture
def house(engine: sa.Engine, settings: Settings, events: Events, wait_until: WaitUntil) -> Iterator[House]:
    house = House(engine, settings, events, wait_until)
    yield house
    house.runner.end()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be written or given back because a task lasts."""
    for name in ("WRITTEN_AFTER", "GIVEN_BACK_AFTER", "LONGEST_BUNDLE"):
        monkeypatch.setattr(open_bundle, name, 600.0)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what waits behind a task be given back as soon as anybody looks."""
    monkeypatch.setattr(open_bundle, "WRITTEN_AFTER", 0.001)
    monkeypatch.setattr(open_bundle, "GIVEN_BACK_AFTER", 0.001)
    monkeypatch.setattr(open_bundle, "LONGEST_BUNDLE", 600.0)


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by one with each commit of what the runner writes."""
    seen: list[int] = []
    begin = DirectEngine.begin

    @contextmanager
    def counted(engine: DirectEngine) -> Iterator[sa.Connection]:
        with begin(engine) as tx:
            yield tx
        seen.append(1)

    monkeypatch.setattr(DirectEngine, "begin", counted)
    return seen


@pytest.mark.usefixtures("unhurried")
def test_a_chunk_of_short_tasks_takes_one_commit_to_claim_and_one_to_end(
    house: House, events: Events, commits: list[int]
) -> None:
    attempts = house.queue(6)
    house.expect(0.001)
    del commits[:]
    house.run(*attempts)
    assert len(commits) == 2
    assert states(house.stage, attempts) == ["success"] * 6
    assert [len(together) for together in events.together] == [6]
    assert [events.of(attempt) for attempt in attempts] == [["success"]] * 6
    assert all(event.duration is not None for event in events)
    assert house.histories() == {attempt.attempt_id for attempt in attempts}


@pytest.mark.usefixtures("unhurried")
def test_the_ends_of_a_chunk_are_written_with_the_claims_of_the_next(
    house: House, monkeypatch: pytest.MonkeyPatch, commits: list[int]
) -> None:
    monkeypatch.setattr(open_bundle, "LARGEST_CHUNK", 2)
    attempts = house.queue(6)
    house.expect(0.001)
    del commits[:]
    house.run(*attempts)
    assert len(commits) == 4
    assert states(house.stage, attempts) == ["success"] * 6


@pytest.mark.usefixtures("unhurried")
def test_each_attempt_of_a_chunk_has_its_own_start_end_log_and_try(house: House) -> None:
    attempts = house.queue(5)
    house.expect(0.001)
    house.run(*attempts)
    times = house.columns(attempts, "start_date", "end_date", "first_start_date", "duration", "try_number")
    for start, end, first_start, duration, try_number in times:
        assert start < end
        assert first_start == start
        assert duration == pytest.approx((end - start).total_seconds())
        assert try_number == 1
    for (_, end, *_), (start, *_) in itertools.pairwise(times):
        assert end <= start
    for attempt in attempts:
        assert house.stage.log(attempt).count("*******") == 1
    with house.engine.connect() as tx:
        rows = tx.execute(sa.select(task_attempt.c["attempt_id", "start_date", "end_date"])).all()
    history = {row.attempt_id: (row.start_date, row.end_date) for row in rows}
    assert [history[attempt.attempt_id] for attempt in attempts] == [(start, end) for start, end, *_ in times]


@pytest.mark.usefixtures("unhurried")
def test_a_task_knows_its_own_start(house: House) -> None:
    attempts = house.queue(3)
    house.expect(0.001)
    seen: list[datetime] = []
    for day in range(3):
        house.on(day, lambda: seen.append(get_current_context()["ti"].start_date))
    house.run(*attempts)
    ends = [end for (end,) in house.columns(attempts, "end_date")]
    assert seen == sorted(seen)
    assert all(start < end for start, end in zip(seen, ends, strict=True))


@pytest.mark.usefixtures("unhurried")
def test_the_first_heartbeat_of_a_task_within_a_chunk_sets_its_start_right(house: House) -> None:
    attempts = house.queue(2)
    house.expect(0.001)
    seen: list[tuple[datetime, datetime]] = []

    def look() -> None:
        ((before,),) = house.columns(attempts[1:], "start_date")
        house.runner.heartbeat.beat()
        ((after,),) = house.columns(attempts[1:], "start_date")
        seen.append((before, after))

    house.on(1, look)
    house.run(*attempts)
    ((before, after),) = seen
    (claimed, ended), (began, _) = house.columns(attempts, "start_date", "end_date")
    assert before == claimed  # all were claimed at once
    assert claimed < after
    assert ended <= began


@pytest.mark.usefixtures("unhurried")
def test_a_task_of_which_nothing_is_known_is_claimed_alone(house: House) -> None:
    attempts = house.queue(3)
    seen: list[list[str]] = []
    house.on(0, lambda: seen.append(states(house.stage, attempts)))
    house.run(*attempts)
    assert seen == [["running", "queued", "queued"]]
    assert states(house.stage, attempts) == ["success"] * 3


@pytest.mark.usefixtures("unhurried")
def test_what_ended_before_a_task_that_will_last_is_written_before_it_begins(house: House) -> None:
    attempts = house.queue(3)
    house.expect(open_bundle.CHUNK_WORK * 2)
    seen: list[list[str]] = []
    house.on(1, lambda: seen.append(states(house.stage, attempts)))
    house.run(*attempts)
    assert seen == [["success", "running", "queued"]]


@pytest.mark.usefixtures("hasty")
def test_what_ended_before_a_task_that_lasts_unexpectedly_is_written_while_it_runs(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_bundle, "GIVEN_BACK_AFTER", 600.0)
    attempts = house.queue(3)
    house.expect(0.001)
    house.on(1, lambda: house.wait_for(attempts[:1], "success"))
    house.run(*attempts)
    assert states(house.stage, attempts) == ["success"] * 3
    assert house.began == ["2024-01-01", "2024-01-02", "2024-01-03"]


@pytest.mark.usefixtures("hasty")
def test_what_waits_behind_a_task_that_lasts_is_given_back_at_once_and_at_no_cost(
    house: House, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_bundle, "LARGEST_CHUNK", 3)
    attempts = house.queue(5)  # the first three are claimed
    house.expect(0.001)
    house.on(0, lambda: house.wait_for(attempts[1:], "none"))
    house.run(*attempts)
    assert house.began == ["2024-01-01"]
    assert states(house.stage, attempts) == ["success", *["none"] * 4]
    for attempt in attempts[1:]:
        assert house.stage.row(attempt) == ("none", None, 1, None, 0)
        assert house.stage.column(attempt, "try_open") is True
        assert events.of(attempt) == ["none"]
    assert house.columns(attempts[1:], "start_date", "first_start_date", "hostname") == [(None, None, None)] * 4
    assert house.histories() == {attempts[0].attempt_id}
    assert events.of(attempts[0]) == ["running", "success"]
    (running,) = [event for event in events if event.state == "running"]
    assert running.duration is not None  # so that the executor knows at once that this task lasts


@pytest.mark.usefixtures("hasty")
def test_what_was_given_back_can_be_taken_by_another_while_the_long_task_runs(
    house: House,
) -> None:
    attempts = house.queue(2)
    house.expect(0.001)
    taken: list[Claim] = []

    def last() -> None:
        house.wait_for(attempts[1:], "none")
        again = replace(attempts[1], attempt_id=str(uuid4()))
        house.stage.set(again, state="queued", external_executor_id=again.attempt_id)
        with house.engine.begin() as tx:
            taken.extend(claim_if_queued(tx, [again], hostname="worker-2@host", pid=1))

    house.on(0, last)
    house.run(*attempts)
    assert [claim.task_instance_id for claim in taken] == [attempts[1].task_instance_id]
    assert house.stage.state(attempts[1]) == "running"
    assert house.began == ["2024-01-01"]


def test_a_bundle_that_takes_too_long_gives_back_what_is_left_of_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_bundle, "LONGEST_BUNDLE", 0.0)
    monkeypatch.setattr(open_bundle, "LARGEST_CHUNK", 2)
    attempts = house.queue(5)
    house.expect(0.001)
    house.run(*attempts)
    assert states(house.stage, attempts) == ["success", "success", "none", "none", "none"]


def test_a_task_that_is_known_to_last_has_nobody_wait_behind_it(house: House) -> None:
    attempts = house.queue(3)
    house.expect(open_bundle.GIVEN_BACK_AFTER * 2)
    house.on(0, lambda: house.wait_for(attempts[1:], "none"))
    house.run(*attempts)
    assert house.began == ["2024-01-01"]


@pytest.mark.usefixtures("unhurried")
def test_an_attempt_that_was_fenced_while_it_waited_does_not_begin(house: House, events: Events) -> None:
    attempts = house.queue(3)
    house.expect(0.001)

    def fence_the_next() -> None:
        house.stage.set(attempts[1], state="success")
        house.runner.heartbeat.beat()

    house.on(0, fence_the_next)
    house.run(*attempts)
    assert house.began == ["2024-01-01", "2024-01-03"]
    assert states(house.stage, attempts) == ["success"] * 3
    assert events.of(attempts[1]) == []


@pytest.mark.usefixtures("unhurried")
def test_a_cancel_stops_a_bundle_between_its_members(house: House, events: Events) -> None:
    attempts = house.queue(3)
    house.expect(0.001)

    def cancel() -> None:
        with house.engine.begin() as tx:
            tx.execute(sa.update(job).values(cancel_requested=True))
        house.runner.heartbeat.hurry()
        time.sleep(60)

    house.on(0, cancel)
    house.run(*attempts)
    assert house.began == ["2024-01-01"]
    assert house.stage.row(attempts[0]).error == "the job was cancelled"
    assert states(house.stage, attempts) == ["failed", "none", "none"]
    assert events.of(attempts[1]) == ["none"]


@pytest.mark.usefixtures("unhurried")
def test_a_pause_stops_a_bundle_before_what_it_has_not_claimed(
    house: House, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_bundle, "LARGEST_CHUNK", 2)
    attempts = house.queue(4)
    house.expect(0.001)

    def pause() -> None:
        for attempt in attempts:
            if house.stage.state(attempt) == "queued":
                house.stage.set(attempt, state="none", external_executor_id=None)

    house.on(0, pause)
    house.run(*attempts)
    assert states(house.stage, attempts) == ["success", "success", "none", "none"]
    assert [events.of(attempt) for attempt in attempts] == [["success"], ["success"], [], []]


@pytest.mark.usefixtures("unhurried")
def test_a_worker_that_stops_gives_back_what_it_has_claimed_and_not_begun(
    house: House, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_bundle, "LARGEST_CHUNK", 2)
    attempts = house.queue(4)
    house.expect(0.001)
    house.on(0, house.stopping.set)
    house.run(*attempts)
    assert states(house.stage, attempts) == ["success", "none", "none", "none"]
    assert [house.stage.row(attempt) for attempt in attempts[1:]] == [("none", None, 1, None, 0)] * 3
    assert house.histories() == {attempts[0].attempt_id}
    assert [events.of(attempt) for attempt in attempts[1:]] == [["none"]] * 3


@pytest.mark.usefixtures("unhurried")
def test_a_value_that_the_database_refuses_harms_its_own_task_only(house: House) -> None:
    attempts = house.queue(4)
    house.expect(0.001)
    house.on(1, refused_value)
    house.run(*attempts)
    assert states(house.stage, attempts) == ["success", "failed", "success", "success"]
    assert house.stage.row(attempts[1]).error


def refused_value() -> Any:
    """Return what JSON can write and the database does not take: a number with too many digits."""
    sys.set_int_max_str_digits(0)
    return 10**140_000


@pytest.mark.usefixtures("unhurried")
def test_fail_stop_finds_what_was_claimed_with_the_failure_as_not_begun(house: House) -> None:
    def fail() -> None:
        raise ValueError

    failing, later = house.stage.queue("load", day=0), house.stage.queue("load", day=1)
    same_run = house.stage.queue("other", day=0)
    house.expect(0.001)
    house.runner._durations.note(("sales", "other"), 0.001)
    house.on(0, fail)
    seen: list[list[str]] = []
    house.on(1, lambda: seen.append(states(house.stage, [failing, same_run])))
    house.run(failing, same_run, later)
    assert states(house.stage, [failing, same_run, later]) == ["failed", "skipped", "success"]
    assert house.began == ["2024-01-01", "2024-01-02"]
    assert seen == [["failed", "skipped"]]  # written before anything else began


@pytest.mark.usefixtures("unhurried")
def test_skips_and_failures_keep_their_order_in_a_group(house: House, events: Events) -> None:
    def skip() -> None:
        raise SkipTask

    def fail() -> None:
        raise ValueError("no good")

    attempts = house.queue(4)
    house.expect(0.001)
    house.on(1, skip)
    house.on(3, fail)
    house.run(*attempts)
    assert states(house.stage, attempts) == ["success", "skipped", "success", "failed"]
    assert [event.attempt_id for event in events] == [attempt.attempt_id for attempt in attempts]


@pytest.mark.usefixtures("hasty")
def test_ends_that_cannot_be_written_while_a_task_runs_are_written_after_it(
    house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_bundle, "GIVEN_BACK_AFTER", 600.0)
    attempts = house.queue(2)
    house.expect(0.001)
    refused = threading.Event()
    monkeypatch.setattr("workers.ledger.finish_if_current", refuse_once(refused))
    house.on(1, lambda: refused.wait(30))
    with caplog.at_level(logging.WARNING):
        house.run(*attempts)
    assert refused.is_set()
    assert states(house.stage, attempts) == ["success", "success"]


def refuse_once(refused: threading.Event) -> Callable[..., set[str]]:
    """Return `finish_if_current`, which fails for a passing reason in another thread than the main one until it did so once."""

    def finish(tx: sa.Connection, finishes: Any) -> set[str]:
        if threading.current_thread() is not threading.main_thread() and not refused.is_set():
            refused.set()
            tx.execute(sa.text("select pg_terminate_backend(pg_backend_pid())"), {})
        return finish_if_current(tx, finishes)

    return finish


@pytest.mark.usefixtures("unhurried")
def test_what_a_process_is_at_is_marked_while_its_task_runs(
    engine: sa.Engine, settings: Settings, house: House
) -> None:
    marks: list[str | None] = []
    runner = Runner(engine, settings, lambda _stream, _events: None, hostname="worker-1@host", mark=marks.append)
    runner._shared.dags._kept.update(house.runner._shared.dags._kept)
    runner._durations.note(("sales", "load"), 0.001)
    attempts = house.queue(2)
    runner.run_bundle(house.stage.bundle(*attempts))
    runner.end()
    assert marks == [attempts[0].attempt_id, None, attempts[1].attempt_id, None, None]
