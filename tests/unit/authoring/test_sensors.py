from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine

from backfill import DAG
from backfill.exceptions import (
    BackfillError,
    DagError,
    FailTask,
    RescheduleTask,
    SensorTimeout,
    SkipTask,
    TaskTimeout,
)
from backfill.sensors import (
    BaseSensorOperator,
    DateTimeSensor,
    FileSensor,
    PokeReturnValue,
    PythonSensor,
    TimeDeltaSensor,
)
from backfill.sensors.base import backoff


def sensor(dag: DAG, *answers: Any, **arguments: Any) -> PythonSensor:
    """Return a sensor that gets `answers` one after the other, the last one for ever; exceptions are raised."""
    left = list(answers)

    def look() -> Any:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return PythonSensor(task_id="s", python_callable=look, dag=dag, **{"poke_interval": 0, "timeout": 60, **arguments})


def test_a_sensor_pokes_until_the_answer_is_true(dag: DAG, run: Any) -> None:
    assert run(sensor(dag, False, 0, "yes")) is None


def test_the_value_of_a_poke_becomes_the_sensors(dag: DAG, run: Any) -> None:
    assert run(sensor(dag, PokeReturnValue(False, 1), PokeReturnValue(True, 2))) == 2


def test_a_poking_sensor_fails_after_its_timeout_counted_from_the_attempt(dag: DAG, prepare: Any) -> None:
    operator, context = prepare(sensor(dag, False, timeout=0))
    context["ti"].first_start_date = datetime(2020, 1, 1, tzinfo=UTC)
    with pytest.raises(SensorTimeout, match="'s' has waited for its whole timeout of 0 s"):
        operator.execute(context)
    operator, context = prepare(sensor(DAG("e"), False, True, timeout=60))
    context["ti"].first_start_date = datetime(2020, 1, 1, tzinfo=UTC)
    assert operator.execute(context) is None


NOW = datetime(2024, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def frozen() -> Iterator[None]:
    with time_machine.travel(NOW, tick=False):
        yield


def rescheduled(prepare: Callable[..., Any], task: Any, first: datetime) -> datetime:
    operator, context = prepare(task)
    context["ti"].first_start_date = first
    with pytest.raises(RescheduleTask) as signal:
        operator.execute(context)
    return signal.value.reschedule_date


@pytest.mark.usefixtures("frozen")
def test_a_rescheduling_sensor_asks_to_be_looked_at_after_its_interval(dag: DAG, prepare: Any) -> None:
    task = sensor(dag, False, mode="reschedule", poke_interval=timedelta(minutes=5), timeout=timedelta(hours=1))
    assert rescheduled(prepare, task, NOW) == NOW + timedelta(minutes=5)
    assert rescheduled(prepare, task, NOW - timedelta(minutes=58)) == NOW + timedelta(minutes=2)


@pytest.mark.usefixtures("frozen")
def test_a_rescheduling_sensors_timeout_runs_from_its_first_attempt(dag: DAG, prepare: Any) -> None:
    operator, context = prepare(sensor(dag, False, mode="reschedule", timeout=3600))
    context["ti"].first_start_date = NOW - timedelta(hours=1)
    with pytest.raises(SensorTimeout):
        operator.execute(context)


@pytest.mark.parametrize("pokes", range(1, 12))
def test_exponential_waits_lie_between_b_and_twice_b(pokes: int) -> None:
    base = max(1, int(60 * 2 ** (pokes - 2)))
    wait = backoff(60, pokes, "seed")
    assert base <= wait < 2 * base
    assert wait == backoff(60, pokes, "seed")


def test_exponential_waits_differ_between_task_instances_and_never_overflow() -> None:
    assert len({backoff(60, 8, f"seed {number}") for number in range(20)}) > 10
    assert backoff(60, 100_000, "seed") > 0


@pytest.mark.usefixtures("frozen")
def test_exponential_waits_grow_over_reschedules_up_to_the_longest(dag: DAG, prepare: Any) -> None:
    arguments: dict[str, Any] = {
        "mode": "reschedule",
        "exponential_backoff": True,
        "poke_interval": 60,
        "timeout": 10**6,
    }
    task = sensor(dag, False, **arguments)
    capped = sensor(DAG("e"), False, max_wait=timedelta(minutes=10), **arguments)
    waits, elapsed = [], timedelta(0)
    for _ in range(6):
        waits.append(rescheduled(prepare, task, NOW - elapsed) - NOW)
        elapsed += waits[-1]
    bases = [timedelta(seconds=max(1, 30 * 2**number)) for number in range(6)]
    assert all(base <= wait < 2 * base for base, wait in zip(bases, waits, strict=True))
    assert rescheduled(prepare, capped, NOW - timedelta(days=1)) - NOW == timedelta(minutes=10)


@pytest.mark.parametrize("error", [TaskTimeout("too long"), FailTask("no")])
def test_soft_fail_turns_an_execution_timeout_and_fail_task_into_a_skip(dag: DAG, run: Any, error: Exception) -> None:
    with pytest.raises(type(error)):
        run(sensor(dag, error))
    with pytest.raises(SkipTask, match="The sensor 's' is skipped"):
        run(sensor(DAG("e"), error, soft_fail=True))
    with pytest.raises(SkipTask):
        run(sensor(DAG("f"), error, never_fail=True))


def test_soft_fail_turns_the_sensors_timeout_into_a_skip(dag: DAG, run: Any) -> None:
    with pytest.raises(SkipTask, match="has waited for its whole timeout"):
        run(sensor(dag, False, timeout=0, soft_fail=True))


def test_another_error_fails_is_skipped_or_logged_as_asked_for(
    dag: DAG, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match="broken"):
        run(sensor(dag, ValueError("broken"), soft_fail=True))
    with pytest.raises(SkipTask, match="broken"):
        run(sensor(DAG("e"), ValueError("broken"), never_fail=True))
    assert run(sensor(DAG("f"), ValueError("broken"), True, silent_fail=True)) is None
    assert "could not look and goes on" in caplog.text


def test_silent_fail_lets_the_tasks_own_signals_through(dag: DAG, run: Any) -> None:
    with pytest.raises(SkipTask, match="mine"):
        run(sensor(dag, SkipTask("mine"), silent_fail=True))
    with pytest.raises(FailTask):
        run(sensor(DAG("e"), FailTask("mine"), silent_fail=True))


def test_a_sensor_that_is_killed_stops_waiting(dag: DAG, prepare: Any) -> None:
    operator, context = prepare(sensor(dag, False, poke_interval=3600, timeout=7200))
    poked = threading.Event()
    operator.poke = lambda _context: poked.set()

    def kill() -> None:
        poked.wait(30)
        operator.on_kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(BackfillError, match="'s' was stopped while it waited"):
        operator.execute(context)
    killer.join()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "wait"}, "mode='wait'; it takes 'poke' or 'reschedule'"),
        ({"poke_interval": "1m"}, "poke_interval='1m'; it takes a timedelta or seconds"),
        ({"timeout": -1}, "timeout=-1"),
        ({"soft_fail": True, "never_fail": True}, "both soft_fail and never_fail"),
    ],
)
def test_wrong_arguments_of_a_sensor_are_named(dag: DAG, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DagError, match=message):
        sensor(dag, True, **arguments)


def test_a_sensor_of_ones_own_defines_poke(dag: DAG, run: Any) -> None:
    class Own(BaseSensorOperator):
        def poke(self, context: Any) -> bool:
            return bool(context["ds"] == "2024-01-01")

    assert run(Own(task_id="own", dag=dag)) is None


@pytest.mark.usefixtures("frozen")
def test_sensors_of_time_look_at_the_clock(dag: DAG, prepare: Any) -> None:
    cases = [
        (DateTimeSensor(task_id="a", target_time="{{ ds }}T11:00:00", dag=dag), True),
        (DateTimeSensor(task_id="b", target_time=NOW + timedelta(seconds=1), dag=dag), False),
        (TimeDeltaSensor(task_id="c", delta=timedelta(hours=1), dag=dag), True),
        (TimeDeltaSensor(task_id="d", delta=timedelta(hours=13), dag=dag), False),
    ]
    for task, expected in cases:
        operator, context = prepare(task, data_interval_end=datetime(2024, 1, 1, tzinfo=UTC))
        assert operator.poke(context) is expected
    operator, context = prepare(DateTimeSensor(task_id="e", target_time="soon", dag=dag))
    with pytest.raises(BackfillError, match="target_time='soon'; it takes an ISO 8601 time"):
        operator.poke(context)


def test_a_file_sensor_waits_for_a_file_a_pattern_or_a_folder_with_files(
    dag: DAG, tmp_path: Path, prepare: Any
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "2024-01-01.csv").touch()
    (tmp_path / "empty").mkdir()
    cases = {
        "full": True,
        "full/{{ ds }}.csv": True,
        "full/*.csv": True,
        "empty": False,
        "missing.csv": False,
        "*.csv": False,
    }
    for number, (name, expected) in enumerate(cases.items()):
        operator, context = prepare(FileSensor(task_id=f"f{number}", filepath=str(tmp_path / name), dag=dag))
        assert operator.poke(context) is expected
    operator, context = prepare(FileSensor(task_id="r", filepath=f"{tmp_path}/**/*.csv", recursive=True, dag=dag))
    assert operator.poke(context)
