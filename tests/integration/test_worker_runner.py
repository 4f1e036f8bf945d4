# ruff: noqa: T201  # tasks print
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from worker_stage import Stage, states

from backfill import DAG, Param, get_current_context, task
from backfill.config import Settings
from backfill.dag.loader import find_dag
from backfill.exceptions import FailTask, RescheduleTask, SkipTask
from backfill.messages import Attempt, ExecutorEvent
from backfill.operators import BashOperator, BranchPythonOperator, PythonOperator
from backfill.states import TaskInstanceState
from workers import open_bundle
from workers.runner import Runner

MakeRunner = Callable[..., Runner]
WaitUntil = Callable[..., None]


class Events(list[ExecutorEvent]):
    """Keeps what the runner publishes."""

    def publish(self, _stream: str, events: Sequence[ExecutorEvent]) -> None:
        self.extend(events)

    def of(self, attempt: Attempt) -> list[TaskInstanceState]:
        return [event.state for event in self if event.attempt_id == attempt.attempt_id]


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def make_runner(engine: sa.Engine, settings: Settings, events: Events) -> Iterator[MakeRunner]:
    made: list[Runner] = []

    def make(**changes: Any) -> Runner:
        given = {"engine": engine, "settings": settings, "publish": events.publish, "hostname": "worker-1@host"}
        made.append(Runner(**(given | changes)))
        return made[-1]

    yield make
    for runner in made:
        runner.end()


@pytest.fixture
def runner(make_runner: MakeRunner) -> Runner:
    return make_runner()


def one_task(function: Callable[..., Any], **arguments: Any) -> DAG:
    with DAG("sales", start_date=datetime(2024, 1, 1, tzinfo=UTC), schedule="@daily") as dag:
        PythonOperator(task_id="load", python_callable=function, **arguments)
    return dag


@pytest.fixture
def run_dag(engine: sa.Engine, settings: Settings, runner: Runner) -> Callable[..., tuple[Stage, Attempt]]:
    """Return a function that runs the task `load` of a DAG to its end."""

    def run(dag: DAG, **job: Any) -> tuple[Stage, Attempt]:
        stage = Stage(engine, settings, dag, **job)
        attempt = stage.queue("load")
        runner.run_bundle(stage.bundle(attempt))
        return stage, attempt

    return run


@pytest.fixture
def run_one(run_dag: Callable[..., tuple[Stage, Attempt]]) -> Callable[..., tuple[Stage, Attempt]]:
    """Return a function that runs a task of one function to its end."""

    def run(
        function: Callable[..., Any], *, job: dict[str, Any] | None = None, **arguments: Any
    ) -> tuple[Stage, Attempt]:
        return run_dag(one_task(function, **arguments), **(job or {}))

    return run


RunOne = RunDag = Callable[..., tuple[Stage, Attempt]]


def test_a_task_that_returns_ends_as_success_with_its_value(run_one: RunOne, events: Events) -> None:
    stage, attempt = run_one(lambda ds: [ds, 1])
    assert stage.state(attempt) == "success"
    assert stage.xcoms(attempt) == {"return_value": ["2024-01-01", 1]}
    assert stage.outcome(attempt) == "success"
    assert events.of(attempt) == [TaskInstanceState.SUCCESS]
    assert stage.column(attempt, "hostname") == "worker-1@host"
    assert stage.column(attempt, "pid") == os.getpid()


def test_the_log_has_what_the_task_printed(run_one: RunOne) -> None:
    stage, attempt = run_one(lambda: print("hello from the task"))
    log = stage.log(attempt)
    assert f"attempt {attempt.attempt_id} on worker-1@host" in log
    assert "STDOUT  hello from the task" in log
    assert log.rstrip().endswith("The task succeeded")


def test_a_task_that_raises_fails_with_its_error(run_one: RunOne, events: Events) -> None:
    def fail() -> None:
        raise ValueError("no such region")

    stage, attempt = run_one(fail)
    row = stage.row(attempt)
    assert (row.state, row.error) == ("failed", "ValueError: no such region")
    assert events[-1].state is TaskInstanceState.FAILED
    assert events[-1].info == row.error
    assert 'raise ValueError("no such region")' in stage.log(attempt)
    assert "workers/execution.py" not in stage.log(attempt)


def test_a_failure_is_retried_after_its_delay(run_one: RunOne) -> None:
    def fail() -> None:
        raise ValueError

    stage, attempt = run_one(fail, retries=1, retry_delay=timedelta(seconds=77))
    assert stage.state(attempt) == "up_for_retry"
    assert stage.column(attempt, "next_attempt_at") - stage.column(attempt, "end_date") == timedelta(seconds=77)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (SkipTask("nothing to do"), "skipped"),
        (FailTask("never"), "failed"),
        ("reschedule", "up_for_reschedule"),
        (SystemExit(0), "success"),
        (SystemExit(3), "up_for_retry"),
        (KeyboardInterrupt(), "up_for_retry"),
    ],
)
def test_what_a_task_raises_decides_its_state(error: Any, state: str, run_one: RunOne) -> None:
    def end() -> None:
        raise RescheduleTask(datetime(2030, 1, 1, tzinfo=UTC)) if error == "reschedule" else error

    stage, attempt = run_one(end, retries=1)
    assert stage.state(attempt) == state


def test_a_lost_claim_does_nothing_and_reports_nothing(
    runner: Runner, engine: sa.Engine, settings: Settings, events: Events, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    stage = Stage(engine, settings, one_task(mark.touch))
    stale = stage.queue("load")
    stage.set(stale, try_number=2)
    assert runner.run_bundle(stage.bundle(stale)) == ()
    assert stage.state(stale) == "queued"
    assert events == []
    assert not mark.exists()
    assert not stage.log_path(stale).exists()


def test_a_message_that_comes_twice_runs_once(
    runner: Runner, engine: sa.Engine, settings: Settings, events: Events, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"

    def note() -> None:
        with journal.open("a") as file:
            file.write("x")

    stage = Stage(engine, settings, one_task(note))
    attempt = stage.queue("load")
    runner.run_bundle(stage.bundle(attempt, attempt))
    runner.run_bundle(stage.bundle(attempt))
    assert journal.read_text() == "x"
    assert events.of(attempt) == [TaskInstanceState.SUCCESS]


def test_a_bundle_runs_one_after_the_other_and_a_failure_does_not_stop_it(
    runner: Runner, engine: sa.Engine, settings: Settings, events: Events
) -> None:
    def only_even(ds_nodash: str) -> int:
        if int(ds_nodash) % 2:
            raise ValueError(ds_nodash)
        return int(ds_nodash)

    stage = Stage(engine, settings, one_task(only_even))
    attempts = [stage.queue("load", day=day) for day in range(4)]
    ends = runner.run_bundle(stage.bundle(*attempts))
    assert states(stage, attempts) == ["failed", "success", "failed", "success"]
    assert [event.attempt_id for event in events] == [attempt.attempt_id for attempt in attempts]
    assert [end.state for end in ends] == ["failed", "success", "failed", "success"]
    starts = [stage.column(attempt, "start_date") for attempt in attempts]
    assert starts == sorted(set(starts))


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be given back because a task lasts."""
    monkeypatch.setattr(open_bundle, "GIVEN_BACK_AFTER", 600.0)
    monkeypatch.setattr(open_bundle, "LONGEST_BUNDLE", 600.0)


@pytest.mark.usefixtures("unhurried")
def test_what_a_database_refuses_is_a_failure_of_its_task_only(
    runner: Runner, engine: sa.Engine, settings: Settings
) -> None:
    stage = Stage(engine, settings, one_task(lambda ds: 10**140_000 if ds == "2024-01-01" else 1))
    attempts = [stage.queue("load", day=day) for day in range(2)]
    sys.set_int_max_str_digits(0)
    runner.run_bundle(stage.bundle(*attempts))
    assert states(stage, attempts) == ["failed", "success"]
    assert stage.row(attempts[0]).error


def test_xcoms_of_an_earlier_attempt_are_gone(runner: Runner, engine: sa.Engine, settings: Settings) -> None:
    def push() -> None:
        context = get_current_context()
        context["ti"].xcom_push(f"key{context['ti'].try_number}", 1)
        raise ValueError

    stage = Stage(engine, settings, one_task(push))
    attempt = stage.queue("load")
    runner.run_bundle(stage.bundle(attempt))
    assert stage.xcoms(attempt) == {"key1": 1}
    stage.set(attempt, state="queued", try_number=2)
    again = Attempt(attempt.task_instance_id, attempt.key, attempt.attempt_id, 2)
    runner.run_bundle(stage.bundle(again))
    assert stage.xcoms(attempt) == {"key2": 1}


def test_values_are_pulled_from_others(runner: Runner, engine: sa.Engine, settings: Settings) -> None:
    def pull(ti: Any) -> list[Any]:
        return [
            ti.xcom_pull(task_ids="one"),
            ti.xcom_pull(task_ids="many"),
            ti.xcom_pull(task_ids="many", map_indexes=1),
            ti.xcom_pull(task_ids=["one", "many"]),
            ti.xcom_pull(task_ids="nobody"),
            ti.xcom_pull(task_ids="nobody", default=0),
            ti.xcom_pull(task_ids="one", key="other"),
            ti.xcom_pull(task_ids="before"),
            ti.xcom_pull(task_ids="before", include_prior_dates=True),
            ti.xcom_pull(task_ids="before", run_id="backfill__2024-01-01T00:00:00+00:00"),
        ]

    with DAG("pulling") as dag:
        PythonOperator(task_id="one", python_callable=lambda: "single")
        PythonOperator.partial(task_id="many", python_callable=lambda n: n * 10).expand(op_args=[[0], [1], [2]])
        PythonOperator(task_id="before", python_callable=lambda: "yesterday")
        PythonOperator(task_id="pull", python_callable=pull)
    stage = Stage(engine, settings, dag)
    first = [stage.queue("before", day=0), stage.queue("one", day=1)]
    many = [stage.queue("many", map_index=index, day=1) for index in range(3)]
    last = stage.queue("pull", day=1)
    runner.run_bundle(stage.bundle(*first, *many, last))
    assert stage.xcoms(last)["return_value"] == [
        "single",
        [0, 10, 20],
        10,
        ["single", 0, 10, 20],
        None,
        0,
        None,
        None,
        "yesterday",
        "yesterday",
    ]


def test_templates_params_and_mapped_values_reach_the_task(
    runner: Runner, engine: sa.Engine, settings: Settings
) -> None:
    @task
    def numbers() -> list[int]:
        return [3, 4]

    @task
    def multiply(number: int, ds: str | None = None) -> str:
        return f"{number * 2} on {ds}"

    with DAG("shaped", params={"region": "north"}, schedule="@daily") as dag:
        multiply.expand(number=numbers())
        BashOperator(
            task_id="shell", bash_command="echo {{ params.region }} {{ ds }} {{ prev_ds }} $AIRFLOW_CTX_TASK_ID"
        )
    stage = Stage(engine, settings, dag, conf={"region": "south"})
    attempts = [
        stage.queue("numbers"),
        *(stage.queue("multiply", map_index=index) for index in range(2)),
        stage.queue("shell"),
    ]
    runner.run_bundle(stage.bundle(*attempts))
    assert states(stage, attempts) == ["success"] * 4
    values = [stage.xcoms(attempt)["return_value"] for attempt in attempts[1:]]
    assert values == ["6 on 2024-01-01", "8 on 2024-01-01", "south 2024-01-01 2023-12-31 shell"]


def test_a_branch_stores_its_decision(runner: Runner, engine: sa.Engine, settings: Settings) -> None:
    with DAG("branching") as dag:
        choose = BranchPythonOperator(task_id="choose", python_callable=lambda: "left")
        choose >> [PythonOperator(task_id=name, python_callable=print) for name in ("left", "right")]
    stage = Stage(engine, settings, dag)
    attempt = stage.queue("choose")
    runner.run_bundle(stage.bundle(attempt))
    assert stage.state(attempt) == "success"
    assert stage.column(attempt, "skips") == ["right"]


def test_a_task_that_feeds_a_mapping_fails_if_it_returns_nothing(
    runner: Runner, engine: sa.Engine, settings: Settings
) -> None:
    @task
    def numbers() -> None:
        return None

    with DAG("mapping") as dag:
        PythonOperator.partial(task_id="use", python_callable=print).expand(op_args=numbers())
    stage = Stage(engine, settings, dag)
    attempt = stage.queue("numbers")
    runner.run_bundle(stage.bundle(attempt))
    assert stage.row(attempt).state == "failed"
    assert "returned nothing" in str(stage.row(attempt).error)


def test_rendering_does_not_change_the_dag_for_the_next_attempt(
    runner: Runner, engine: sa.Engine, settings: Settings
) -> None:
    with DAG("rendered") as dag:
        BashOperator(task_id="shell", bash_command="echo {{ ds }}")
    stage = Stage(engine, settings, dag)
    attempts = [stage.queue("shell", day=day) for day in range(2)]
    runner.run_bundle(stage.bundle(*attempts))
    assert [stage.xcoms(each)["return_value"] for each in attempts] == ["2024-01-01", "2024-01-02"]


def test_an_undefined_name_in_a_template_fails_the_attempt(run_one: RunOne) -> None:
    stage, attempt = run_one(print, op_args=["{{ nowhere }}"])
    assert stage.state(attempt) == "failed"
    assert "nowhere" in str(stage.row(attempt).error)


def journal_callbacks(journal: Path) -> dict[str, Any]:
    """Return callbacks that note their name, the state of the row and what the context tells."""

    def noting(name: str) -> Callable[[Any], None]:
        def note(context: Any) -> None:
            with journal.open("a") as file:
                file.write(f"{name}: {context['ti'].state} {context.get('exception')!r}\n")
            raise ValueError("a callback that fails changes nothing")

        return note

    names = ("execute", "success", "failure", "retry", "skipped")
    return {f"on_{name}_callback": noting(name) for name in names}


def test_callbacks_run_by_result_and_what_they_raise_changes_nothing(tmp_path: Path, run_one: RunOne) -> None:
    journal = tmp_path / "journal"
    stage, attempt = run_one(lambda: None, **journal_callbacks(journal))
    assert stage.state(attempt) == "success"
    assert journal.read_text().splitlines() == ["execute: running None", "success: success None"]
    assert "a callback that fails changes nothing" in stage.log(attempt)


@pytest.mark.parametrize(
    ("error", "retries", "expected"),
    [
        (ValueError("x"), 0, ["failure: failed ValueError('x')"]),
        (ValueError("x"), 1, ["retry: up_for_retry ValueError('x')"]),
        (FailTask("x"), 1, ["failure: failed FailTask('x')"]),
        (SkipTask("x"), 0, ["skipped: skipped SkipTask('x')", "success: skipped SkipTask('x')"]),
        ("reschedule", 0, []),
    ],
)
def test_each_result_has_its_callbacks(
    error: Any, retries: int, expected: list[str], tmp_path: Path, run_one: RunOne
) -> None:
    def end() -> None:
        raise RescheduleTask(datetime(2030, 1, 1, tzinfo=UTC)) if error == "reschedule" else error

    journal = tmp_path / "journal"
    run_one(end, retries=retries, **journal_callbacks(journal))
    assert journal.read_text().splitlines() == ["execute: running None", *expected]


def test_callbacks_run_before_the_state_is_visible(engine: sa.Engine, tmp_path: Path, run_one: RunOne) -> None:
    seen = tmp_path / "seen"
    url = engine.url.render_as_string(hide_password=False)

    def look(context: Any) -> None:
        with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
            statement = sa.text("select state from task_instance where id = :id")
            seen.write_text(connection.execute(statement, {"id": context["ti"].task_instance_id}).scalar_one())

    run_one(lambda: None, on_success_callback=look)
    assert seen.read_text() == "running"


def test_mark_success_runs_the_callback_and_nothing_else(tmp_path: Path, run_one: RunOne) -> None:
    journal = tmp_path / "journal"

    def fail() -> None:
        raise ValueError

    stage, attempt = run_one(
        fail, job={"params": {"mark_success": True}}, op_args=["{{ nowhere }}"], **journal_callbacks(journal)
    )
    assert stage.state(attempt) == "success"
    assert journal.read_text().splitlines() == ["success: success None"]


class Killable(PythonOperator):
    """Leaves a file where it was killed."""

    def __init__(self, *, mark: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.mark = mark

    def on_kill(self) -> None:
        Path(self.mark).touch()


def killable(mark: Path, function: Callable[..., Any], **arguments: Any) -> DAG:
    with DAG("sales", schedule="@daily") as dag:
        Killable(task_id="load", mark=str(mark), python_callable=function, **arguments)
    return dag


def test_mark_success_needs_no_values_to_map_over(
    runner: Runner, engine: sa.Engine, settings: Settings, tmp_path: Path
) -> None:
    with DAG("marked") as dag:
        source = PythonOperator(task_id="source", python_callable=list)
        PythonOperator.partial(task_id="many", python_callable=print, **journal_callbacks(tmp_path / "journal")).expand(
            op_args=source.output
        )
    stage = Stage(engine, settings, dag, params={"mark_success": True})
    attempt = stage.queue("many")
    runner.run_bundle(stage.bundle(attempt))
    assert stage.state(attempt) == "success"
    assert (tmp_path / "journal").read_text().splitlines() == ["success: success None"]


def test_a_param_that_does_not_fit_is_a_failure_with_retries_and_callbacks(tmp_path: Path, run_one: RunOne) -> None:
    journal = tmp_path / "journal"
    stage, attempt = run_one(
        print,
        job={"conf": {"amount": "much"}},
        params={"amount": Param(1, type="integer")},
        retries=1,
        retry_delay=timedelta(seconds=7),
        **journal_callbacks(journal),
    )
    assert stage.state(attempt) == "up_for_retry"
    assert "The param 'amount' is 'much'" in str(stage.row(attempt).error)
    assert stage.column(attempt, "next_attempt_at") - stage.column(attempt, "end_date") == timedelta(seconds=7)
    assert journal.read_text().startswith("retry: up_for_retry UsageError")


def test_a_mapped_task_that_pushed_nothing_gives_an_empty_list(
    runner: Runner, engine: sa.Engine, settings: Settings
) -> None:
    with DAG("empty") as dag:
        many = PythonOperator.partial(task_id="many", python_callable=print).expand(op_args=[[1]])
        PythonOperator(task_id="pull", python_callable=lambda values: {"values": values}, op_args=[many.output])
    stage = Stage(engine, settings, dag)
    attempt = stage.queue("pull")
    runner.run_bundle(stage.bundle(attempt))
    assert stage.xcoms(attempt) == {"return_value": {"values": []}}


def test_execution_timeout_ends_the_task(tmp_path: Path, run_dag: RunDag) -> None:
    mark, before = tmp_path / "killed", signal.getsignal(signal.SIGALRM)
    dag = killable(mark, time.sleep, op_args=[60], execution_timeout=timedelta(seconds=0.1), retries=1)
    stage, attempt = run_dag(dag)
    row = stage.row(attempt)
    assert (row.state, row.error) == (
        "up_for_retry",
        "TaskTimeout: execution_timeout of 0:00:00.100000 is over",
    )
    assert mark.exists()
    assert signal.getsignal(signal.SIGALRM) is before


def test_a_task_that_catches_its_timeout_has_timed_out_all_the_same(run_one: RunOne) -> None:
    def stubborn() -> str:
        try:
            time.sleep(60)
        except Exception:  # noqa: BLE001
            return "went on"
        return "slept"

    stage, attempt = run_one(stubborn, execution_timeout=timedelta(seconds=0.1))
    assert stage.state(attempt) == "failed"
    assert stage.xcoms(attempt) == {}


def test_a_timer_of_the_process_goes_on_after_a_time_limit(run_one: RunOne) -> None:
    left = signal.setitimer(signal.ITIMER_REAL, 500)
    try:
        run_one(lambda: None, execution_timeout=timedelta(seconds=60))
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 500
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)


def test_sigterm_from_outside_is_a_failure_after_on_kill(tmp_path: Path, run_dag: RunDag) -> None:
    mark = tmp_path / "killed"
    cleaned = tmp_path / "cleaned"

    def wait() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except Exception:  # noqa: BLE001
            time.sleep(60)
        finally:
            cleaned.touch()

    before = signal.getsignal(signal.SIGTERM)
    stage, attempt = run_dag(killable(mark, wait, retries=1))
    row = stage.row(attempt)
    assert (row.state, row.error) == ("up_for_retry", "the task's process was told to stop (SIGTERM)")
    assert mark.exists()
    assert cleaned.exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_after_a_sigterm_the_rest_of_the_bundle_is_put_back(
    runner: Runner, engine: sa.Engine, settings: Settings, events: Events
) -> None:
    stage = Stage(engine, settings, one_task(lambda: os.kill(os.getpid(), signal.SIGTERM)))
    attempts = [stage.queue("load", day=day) for day in range(3)]
    runner.run_bundle(stage.bundle(*attempts))
    assert states(stage, attempts) == ["failed", "none", "none"]
    assert stage.row(attempts[1]) == ("none", None, 1, None, 0)
    assert [events.of(attempt) for attempt in attempts] == [["failed"], ["none"], ["none"]]


def test_an_attempt_of_a_worker_that_stops_is_handed_back(
    make_runner: MakeRunner, engine: sa.Engine, settings: Settings, events: Events, tmp_path: Path
) -> None:
    stopping = threading.Event()
    runner = make_runner(stopping=stopping.is_set)
    mark, callbacks, flag = tmp_path / "killed", tmp_path / "callbacks", tmp_path / "flag"

    def wait() -> None:
        flag.touch()
        time.sleep(60)

    def stop() -> None:
        while not flag.exists():
            time.sleep(0.001)
        stopping.set()
        os.kill(os.getpid(), signal.SIGTERM)

    stage = Stage(engine, settings, killable(mark, wait, retries=1, **journal_callbacks(callbacks)))
    attempts = [stage.queue("load", day=day) for day in range(2)]
    stage.set(attempts[0], infrastructure_failures=2)
    stopper = threading.Thread(target=stop)
    stopper.start()
    ends = runner.run_bundle(stage.bundle(*attempts))
    stopper.join()
    assert ends == ()
    assert stage.row(attempts[0]) == ("none", None, 1, None, 2)
    assert stage.column(attempts[0], "try_open") is True
    assert stage.state(attempts[1]) == "none"
    assert mark.exists()
    assert callbacks.read_text().splitlines() == ["execute: running None"]
    assert [events.of(attempt) for attempt in attempts] == [["none"], ["none"]]


def test_a_worker_that_was_told_to_stop_begins_nothing(
    make_runner: MakeRunner, engine: sa.Engine, settings: Settings, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    stage = Stage(engine, settings, one_task(mark.touch))
    attempt = stage.queue("load")
    make_runner(stopping=lambda: True).run_bundle(stage.bundle(attempt))
    assert stage.state(attempt) == "none"
    assert not mark.exists()


@pytest.fixture
def quick(settings: Settings) -> Settings:
    """Return settings with heartbeats that tests need not wait for."""
    return settings.override("test", {"task.heartbeat_interval": 0.05, "task.heartbeat_timeout": 30})


def test_an_attempt_that_is_not_current_any_more_is_stopped_and_writes_nothing(
    make_runner: MakeRunner, engine: sa.Engine, quick: Settings, tmp_path: Path, events: Events
) -> None:
    mark, callbacks = tmp_path / "killed", tmp_path / "callbacks"
    url = engine.url.render_as_string(hide_password=False)

    def take_away(ti: Any) -> None:
        with sa.create_engine(url, poolclass=sa.NullPool).begin() as tx:
            tx.execute(
                sa.text("update task_instance set state = 'success' where id = :id"), {"id": ti.task_instance_id}
            )
        time.sleep(60)

    with DAG("sales") as dag:
        Killable(task_id="load", mark=str(mark), python_callable=take_away, **journal_callbacks(callbacks))
        PythonOperator(task_id="next", python_callable=lambda: 1)
    stage = Stage(engine, quick, dag)
    taken, following = stage.queue("load"), stage.queue("next")
    make_runner(settings=quick).run_bundle(stage.bundle(taken, following))
    assert stage.row(taken).error is None
    assert stage.state(taken) == "success"
    assert stage.xcoms(taken) == {}
    assert mark.exists()
    assert callbacks.read_text().splitlines() == ["execute: running None"]
    assert stage.state(following) == "success"
    assert TaskInstanceState.SUCCESS not in events.of(taken)


def test_a_result_of_an_attempt_that_is_not_current_is_thrown_away(
    engine: sa.Engine, run_one: RunOne, events: Events
) -> None:
    url = engine.url.render_as_string(hide_password=False)

    def take_away(ti: Any) -> str:
        with sa.create_engine(url, poolclass=sa.NullPool).begin() as tx:
            tx.execute(
                sa.text("update task_instance set external_executor_id = gen_random_uuid() where id = :id"),
                {"id": ti.task_instance_id},
            )
        ti.xcom_push("key", "value")
        return "result"

    stage, attempt = run_one(take_away)
    assert stage.state(attempt) == "running"
    assert stage.xcoms(attempt) == {}
    assert events == []


def test_the_heartbeat_is_kept_while_the_task_runs(
    make_runner: MakeRunner, engine: sa.Engine, quick: Settings, events: Events
) -> None:
    url = engine.url.render_as_string(hide_password=False)

    def wait_for_heartbeats(ti: Any) -> int:
        seen = set()
        with sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT").connect() as tx:
            while len(seen) < 3:
                statement = sa.text("select heartbeat_at from task_instance where id = :id")
                seen.add(tx.execute(statement, {"id": ti.task_instance_id}).scalar_one())
                time.sleep(0.01)
        return len(seen)

    stage = Stage(engine, quick, one_task(wait_for_heartbeats))
    attempt = stage.queue("load")
    make_runner(settings=quick).run_bundle(stage.bundle(attempt))
    assert stage.state(attempt) == "success"
    assert events.of(attempt) == ["running", "success"]


def test_a_lost_connection_is_made_anew_for_the_final_write(engine: sa.Engine, run_one: RunOne) -> None:
    url = engine.url.render_as_string(hide_password=False)

    def cut_connections() -> str:
        with sa.create_engine(url, poolclass=sa.NullPool).begin() as tx:
            tx.execute(
                sa.text(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and pid <> pg_backend_pid()"
                )
            )
        return "done"

    stage, attempt = run_one(cut_connections)
    assert stage.state(attempt) == "success"
    assert stage.xcoms(attempt) == {"return_value": "done"}


def test_fail_stop_ends_the_rest_of_the_run(runner: Runner, engine: sa.Engine, settings: Settings) -> None:
    def fail() -> None:
        raise ValueError

    with DAG("stopping", fail_stop=True) as dag:
        for name in ("load", "other", "clean"):
            PythonOperator(task_id=name, python_callable=fail)
        dag.task_dict["clean"].as_teardown()
    stage = Stage(engine, settings, dag)
    failing, other, clean = (stage.queue(name) for name in ("load", "other", "clean"))
    runner.run_bundle(stage.bundle(failing, other))
    assert states(stage, [failing, other, clean]) == ["failed", "skipped", "queued"]


def test_an_unwritable_log_fails_the_attempt_before_it_starts(
    runner: Runner, engine: sa.Engine, settings: Settings, tmp_path: Path
) -> None:
    settings.log_folder.parent.mkdir(parents=True, exist_ok=True)
    settings.log_folder.write_text("in the way")
    mark = tmp_path / "ran"
    stage = Stage(engine, settings, one_task(mark.touch))
    attempt = stage.queue("load")
    runner.run_bundle(stage.bundle(attempt))
    assert stage.state(attempt) == "failed"
    assert "cannot be written: Not a directory." in str(stage.row(attempt).error)
    assert not mark.exists()


def test_secrets_of_the_settings_do_not_reach_the_log(
    make_runner: MakeRunner, engine: sa.Engine, settings: Settings
) -> None:
    secret = settings.override("test", {"flower.password": "very-secret"})
    stage = Stage(engine, secret, one_task(lambda: print("it is very-secret")))
    attempt = stage.queue("load")
    make_runner(settings=secret).run_bundle(stage.bundle(attempt))
    assert "it is ***" in stage.log(attempt)


def test_secrets_do_not_reach_the_row_or_the_event(
    make_runner: MakeRunner, engine: sa.Engine, settings: Settings, events: Events
) -> None:
    def fail() -> None:
        raise ValueError("cannot log in with very-secret")

    secret = settings.override("test", {"flower.password": "very-secret"})
    stage = Stage(engine, secret, one_task(fail))
    attempt = stage.queue("load")
    make_runner(settings=secret).run_bundle(stage.bundle(attempt))
    assert stage.row(attempt).error == events[-1].info == "ValueError: cannot log in with ***"
    assert "very-secret" not in stage.log(attempt)


def test_a_dag_that_is_not_signed_with_our_key_is_refused(run_one: RunOne, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    stage, attempt = run_one(mark.touch, job={"key": b"another key"})
    assert stage.state(attempt) == "failed"
    assert "is not signed with this worker's core.secret_key" in str(stage.row(attempt).error)
    assert not mark.exists()


def test_a_task_that_the_dag_lacks_is_an_ordinary_failure(
    runner: Runner, engine: sa.Engine, settings: Settings
) -> None:
    stage = Stage(engine, settings, one_task(print))
    attempt = stage.queue("unload")
    runner.run_bundle(stage.bundle(attempt))
    assert stage.state(attempt) == "failed"
    assert "has no task 'unload'" in str(stage.row(attempt).error)


DAG_FILE = """
from pathlib import Path
from backfill import DAG
from backfill.operators import PythonOperator

with DAG("filed", schedule="@daily") as dag:
    PythonOperator(task_id="load", python_callable=lambda: Path({mark!r}).touch())
"""


@pytest.fixture
def dag_file(settings: Settings, tmp_path: Path) -> Path:
    settings.core.dags_folder.mkdir()
    file = settings.core.dags_folder / "filed.py"
    file.write_text(DAG_FILE.format(mark=str(tmp_path / "ran")))
    return file


@pytest.mark.parametrize("named", [True, False], ids=["at the same path", "by its id"])
def test_a_dag_may_come_from_a_file_of_the_worker(
    named: bool, runner: Runner, engine: sa.Engine, settings: Settings, dag_file: Path, tmp_path: Path
) -> None:
    loaded = find_dag(str(dag_file), settings.core.dags_folder)
    source = {"file": str(dag_file) if named else "/elsewhere/filed.py", "file_hash": loaded.file_hash}
    stage = Stage(engine, settings, loaded.dag, from_file=source)
    attempt = stage.queue("load")
    runner.run_bundle(stage.bundle(attempt))
    assert stage.state(attempt) == "success"
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda file: file.write_text(file.read_text() + "\n# edited"),
            "differs from the one that the job was made with",
        ),
        (lambda file: file.unlink(), "There is no DAG 'filed'"),
    ],
    ids=["changed", "deleted"],
)
def test_a_file_that_is_not_the_same_is_an_ordinary_failure(
    change: Callable[[Path], object],
    complaint: str,
    runner: Runner,
    engine: sa.Engine,
    settings: Settings,
    dag_file: Path,
    tmp_path: Path,
) -> None:
    loaded = find_dag(str(dag_file), settings.core.dags_folder)
    stage = Stage(engine, settings, loaded.dag, from_file={"file": str(dag_file), "file_hash": loaded.file_hash})
    attempt = stage.queue("load")
    change(dag_file)
    runner.run_bundle(stage.bundle(attempt))
    assert stage.state(attempt) == "failed"
    assert complaint in str(stage.row(attempt).error)
    assert not (tmp_path / "ran").exists()


def test_tasks_see_who_they_are_and_leave_no_trace(run_one: RunOne) -> None:
    before = dict(os.environ)
    stage, attempt = run_one(lambda: {name: value for name, value in os.environ.items() if "_CTX_" in name}, owner="me")
    assert stage.xcoms(attempt)["return_value"] == {
        "AIRFLOW_CTX_DAG_ID": "sales",
        "AIRFLOW_CTX_TASK_ID": "load",
        "AIRFLOW_CTX_EXECUTION_DATE": "2024-01-01T00:00:00+00:00",
        "AIRFLOW_CTX_TRY_NUMBER": "1",
        "AIRFLOW_CTX_DAG_RUN_ID": "backfill__2024-01-01T00:00:00+00:00",
        "AIRFLOW_CTX_DAG_OWNER": "me",
    }
    assert dict(os.environ) == before
