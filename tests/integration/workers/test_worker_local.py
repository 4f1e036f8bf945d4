# ruff: noqa: T201  # tasks print
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from worker_stage import Stage

from backfill import DAG
from backfill.config import Settings
from backfill.executors.environment import settings_environment
from backfill.messages import Attempt, Bundle, ExecutorEvent
from backfill.operators import PythonOperator

WaitUntil = Callable[..., None]
Process = subprocess.Popen[bytes]


@pytest.fixture
def process(settings: Settings, tmp_path: Path) -> Iterator[Process]:
    with (tmp_path / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "workers.local"],
            env=settings_environment(settings, os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    with process:
        yield process
        process.kill()


def order(process: Process, bundle: Bundle) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(bundle.encode()).encode() + b"\n")
    process.stdin.flush()


def answer(process: Process) -> list[ExecutorEvent]:
    """Return the events up to the empty line, or to the end of the process."""
    assert process.stdout is not None
    events = []
    while (line := process.stdout.readline()).strip():
        events.append(ExecutorEvent.decode(line))
    return events


def dag_of(place: Path) -> DAG:
    root = str(place)

    def speaks() -> None:
        print("to the log")
        os.system("echo to the log as well")
        print(sys.stdin.read())

    def hangs() -> None:
        Path(root, "begun").touch()
        time.sleep(300)

    with DAG("local", start_date=datetime(2024, 1, 1, tzinfo=UTC)) as dag:
        PythonOperator(task_id="speaks", python_callable=speaks)
        PythonOperator(task_id="hangs", python_callable=hangs, retries=1)
    return dag


@pytest.fixture
def stage(engine: sa.Engine, settings: Settings, tmp_path: Path) -> Stage:
    return Stage(engine, settings, dag_of(tmp_path))


def begin_hanging(process: Process, stage: Stage, place: Path, wait_until: WaitUntil) -> Attempt:
    attempt = stage.queue("hangs")
    order(process, stage.bundle(attempt))
    wait_until((place / "begun").exists, "the task runs")
    return attempt


def test_only_events_go_to_the_executor(process: Process, stage: Stage) -> None:
    attempts = [stage.queue("speaks", day=day) for day in range(2)]
    for attempt in attempts:
        order(process, stage.bundle(attempt))
        (event,) = answer(process)
        assert (event.attempt_id, event.state) == (attempt.attempt_id, "success")
    assert "to the log as well" in stage.log(attempts[0])


def test_a_broken_order_is_dropped(process: Process, stage: Stage) -> None:
    assert process.stdin is not None
    for line in (b"no json\n", b"{}\n"):
        process.stdin.write(line)
        process.stdin.flush()
        assert answer(process) == []
    attempt = stage.queue("speaks")
    order(process, stage.bundle(attempt))
    assert len(answer(process)) == 1


def test_the_end_of_its_input_is_the_order_to_hand_back_and_leave(
    process: Process, stage: Stage, tmp_path: Path, wait_until: WaitUntil
) -> None:
    attempt = begin_hanging(process, stage, tmp_path, wait_until)
    assert process.stdin is not None
    process.stdin.close()
    (event,) = answer(process)
    assert (event.attempt_id, event.state) == (attempt.attempt_id, "none")
    assert process.wait(30) == os.EX_OK
    assert stage.row(attempt) == ("none", None, 1, None, 0)


def test_sigterm_ends_the_attempt_and_the_process(
    process: Process, stage: Stage, tmp_path: Path, wait_until: WaitUntil
) -> None:
    attempt = begin_hanging(process, stage, tmp_path, wait_until)
    process.terminate()
    (event,) = answer(process)
    assert (event.attempt_id, event.state) == (attempt.attempt_id, "up_for_retry")
    assert process.wait(30) == os.EX_OK


@pytest.mark.parametrize("by_signal", [True, False])
def test_an_idle_process_leaves_when_told(by_signal: bool, process: Process, stage: Stage) -> None:
    order(process, stage.bundle(stage.queue("speaks")))
    answer(process)
    assert process.stdin is not None
    if by_signal:
        process.terminate()
    else:
        process.stdin.close()
    assert process.wait(30) == os.EX_OK


def test_an_interrupt_of_the_terminal_does_not_reach_it(process: Process, stage: Stage) -> None:
    order(process, stage.bundle(stage.queue("speaks")))
    answer(process)
    process.send_signal(signal.SIGINT)
    order(process, stage.bundle(stage.queue("speaks", day=1)))
    assert len(answer(process)) == 1


_IMPATIENT = """
from datetime import timedelta
from workers import attempt, local
attempt.UNRESPONSIVE_AFTER = timedelta(seconds=0.1)
local.main()
"""


def test_a_task_that_does_not_react_to_the_end_of_its_time_is_killed_with_its_process(
    engine: sa.Engine, settings: Settings
) -> None:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)

    def hangs_in_c_code() -> None:
        import psycopg2

        with psycopg2.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute("select pg_sleep(300)")

    with DAG("stuck") as dag:
        PythonOperator(
            task_id="stuck",
            python_callable=hangs_in_c_code,
            execution_timeout=timedelta(seconds=0.1),
            on_failure_callback=lambda context: print("called back for", context["exception"]),
        )
    stage = Stage(engine, settings, dag)
    attempt = stage.queue("stuck")
    with subprocess.Popen(
        [sys.executable, "-c", _IMPATIENT],
        env=settings_environment(settings, os.environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        order(process, stage.bundle(attempt))
        (event,) = answer(process)
        assert process.wait(30) == -signal.SIGKILL
    assert (event.attempt_id, event.state) == (attempt.attempt_id, "failed")
    assert "execution_timeout of 0:00:00.100000 is over" in str(stage.row(attempt).error)
    assert "called back for execution_timeout" in stage.log(attempt)


def test_a_wrong_setting_is_one_sentence(tmp_path: Path) -> None:
    environment = os.environ | {"BACKFILL__TASK__HEARTBEAT_TIMEOUT": "6", "BACKFILL_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "workers.local"],
        env=environment | {"BACKFILL__DATABASE__URL": "postgresql:///nowhere"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("task.heartbeat_timeout is 6 s")
    assert len(done.stderr.splitlines()) == 1
