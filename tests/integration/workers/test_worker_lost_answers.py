"""A transaction of a worker was committed, and the connection is cut before its answer arrives; or just before it was committed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from gates import CommitGate
from worker_stage import Stage

from backfill import DAG
from backfill.config import Settings
from backfill.messages import Attempt, ExecutorEvent
from backfill.operators import PythonOperator
from backfill.store.claims import claim_if_queued
from backfill.store.database import create_engine
from workers.conclusion import Conclusion
from workers.ledger import Ledger, Writing
from workers.runner import Runner

HOST = "worker-1@host"
WAYS = pytest.mark.parametrize("arrives", [True, False], ids=["committed", "not committed"])


@pytest.fixture
def gate(database_url: str) -> Iterator[CommitGate]:
    folder = str(sa.make_url(database_url).query["host"])
    with CommitGate(Path(folder) / ".s.PGSQL.5432") as gate:
        yield gate


@pytest.fixture
def through(gate: CommitGate, database_url: str) -> Iterator[sa.Engine]:
    """Connections that pass through the gate."""
    url = sa.make_url(database_url).set(host="127.0.0.1", port=gate.port, query={})
    engine = create_engine(url.render_as_string(hide_password=False), application_name="tests")
    yield engine
    engine.dispose()


@pytest.fixture
def events() -> list[ExecutorEvent]:
    return []


@pytest.fixture
def runner(through: sa.Engine, settings: Settings, events: list[ExecutorEvent]) -> Iterator[Runner]:
    def publish(_stream: str, told: Sequence[ExecutorEvent]) -> None:
        events.extend(told)

    runner = Runner(through, settings, publish, hostname=HOST)
    yield runner
    runner.end()


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def stage(engine: sa.Engine, settings: Settings, journal: Path) -> Stage:
    place = str(journal)

    def load() -> None:
        with open(place, "a", encoding="utf-8") as file:  # noqa: PTH123  # in a process of its own
            file.write("done\n")

    with DAG("sales", start_date=datetime(2024, 1, 1, tzinfo=UTC), schedule="@daily") as dag:
        PythonOperator(task_id="load", python_callable=load)
    return Stage(engine, settings, dag)


class Time:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def ledger(through: sa.Engine, time: Time) -> Ledger:
    def refused(*_: object) -> Conclusion:
        raise AssertionError

    return Ledger(
        through, hostname=HOST, publish=lambda _events: None, leaving=lambda: False, refused=refused, clock=time
    )


@WAYS
def test_a_claim_whose_answer_was_lost_is_known_again_and_its_task_runs_once(
    stage: Stage, runner: Runner, gate: CommitGate, journal: Path, arrives: bool
) -> None:
    attempts = [stage.queue("load", day=day) for day in range(2)]
    attempts.append(attempts[0])
    gate.lose_next_commit(arrives=arrives)
    for attempt in attempts:
        runner.run_bundle(stage.bundle(attempt))
    assert [(stage.state(each), stage.row(each).infrastructure_failures) for each in attempts] == [("success", 0)] * 3
    assert journal.read_text() == "done\n" * 2


@WAYS
def test_a_claim_that_is_known_again_is_as_fresh_as_any_other(
    stage: Stage, ledger: Ledger, gate: CommitGate, time: Time, arrives: bool
) -> None:
    """Else a process that waited for its database would kill itself with the first thing that it claims."""
    attempt = stage.queue("load")

    def let_time_pass() -> None:
        time.seconds += 1000

    gate.lose_next_commit(arrives=arrives, meanwhile=let_time_pass)
    taken = ledger.write(Writing(claim=[attempt]))
    assert [each.attempt_id for each in taken.claims] == [attempt.attempt_id]
    assert taken.since == 1100
    assert taken.claims[0].start_date == stage.column(attempt, "start_date")


def test_the_claim_of_a_namesake_is_not_taken_for_the_own(
    stage: Stage, engine: sa.Engine, ledger: Ledger, gate: CommitGate
) -> None:
    """Containers may be alike in host name and process id, and a message may come twice."""
    attempt = stage.queue("load")

    def claim_as_namesake() -> None:
        with engine.begin() as tx:
            assert claim_if_queued(tx, [attempt], hostname=HOST, pid=os.getpid())

    gate.lose_next_commit(arrives=False, meanwhile=claim_as_namesake)
    assert ledger.write(Writing(claim=[attempt])).claims == []


@pytest.mark.parametrize("change", ["state = 'failed'", "external_executor_id = gen_random_uuid()"])
def test_a_claim_that_was_taken_away_meanwhile_is_not_the_own_any_more(
    stage: Stage, engine: sa.Engine, ledger: Ledger, gate: CommitGate, change: str
) -> None:
    attempt = stage.queue("load")

    def take_away() -> None:
        with engine.begin() as tx:
            tx.execute(sa.text(f"update task_instance set {change}"))

    gate.lose_next_commit(arrives=True, meanwhile=take_away)
    assert ledger.write(Writing(claim=[attempt])).claims == []


@WAYS
def test_an_end_whose_answer_was_lost_is_told_all_the_same(
    stage: Stage,
    runner: Runner,
    gate: CommitGate,
    events: list[ExecutorEvent],
    arrives: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempt: Attempt = stage.queue("load")
    write = Ledger.write

    def lose_end(self: Ledger, writing: Writing, *, patiently: bool = True) -> object:
        if writing.ended:
            gate.lose_next_commit(arrives=arrives)
        return write(self, writing, patiently=patiently)

    monkeypatch.setattr(Ledger, "write", lose_end)
    runner.run_bundle(stage.bundle(attempt))
    assert stage.state(attempt) == "success"
    assert [event.state for event in events] == ["success"]


@WAYS
def test_an_attempt_that_is_asked_for_twice_is_taken_once(
    stage: Stage, ledger: Ledger, gate: CommitGate, arrives: bool
) -> None:
    attempts = [stage.queue("load", day=day) for day in range(2)]
    gate.lose_next_commit(arrives=arrives)
    taken = ledger.write(Writing(claim=[*attempts, attempts[0]]))
    assert [each.attempt_id for each in taken.claims] == [each.attempt_id for each in attempts]
