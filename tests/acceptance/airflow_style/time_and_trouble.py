"""Sensors, time limits, retries."""

import os
import time
from datetime import datetime, timedelta
from pathlib import Path

from backfill import DAG, task
from backfill.exceptions import AirflowRescheduleException
from backfill.operators import BashOperator, EmptyOperator
from backfill.sensors import (
    BaseSensorOperator,
    DateTimeSensor,
    FileSensor,
    PokeReturnValue,
    PythonSensor,
    TimeDeltaSensor,
)

SOON = {"poke_interval": 0.05, "timeout": 20}


def counted(name, until):
    """Return whether this is the `until`-th time that `name` is counted."""
    file = Path(os.environ["NOTES"]) / name
    with file.open("a") as counter:
        counter.write("x")
    return len(file.read_text()) >= until


class Poked(BaseSensorOperator):
    template_fields = ("name",)

    def __init__(self, *, name, **kwargs):
        super().__init__(**kwargs)
        self.name = name

    def poke(self, context):
        return PokeReturnValue(is_done=counted(self.name, 3), xcom_value=self.name)


with DAG("sensing", schedule="@daily", start_date=datetime(2024, 1, 1), default_args={"retries": 0}):
    Poked(task_id="pokes", name="pokes_{{ ds }}", mode="poke", **SOON)
    Poked(task_id="comes_back", name="comes_back_{{ ds }}", mode="reschedule", **SOON)
    PythonSensor(task_id="too_late", python_callable=lambda: False, poke_interval=0.05, timeout=0.1)
    PythonSensor(
        task_id="does_not_matter", python_callable=lambda: False, poke_interval=0.05, timeout=0.1, soft_fail=True
    )
    TimeDeltaSensor(task_id="long_over", delta=timedelta(hours=1), **SOON)
    DateTimeSensor(task_id="at_a_time", target_time="{{ data_interval_end }}", **SOON)
    FileSensor(task_id="a_file", filepath="/etc/hostname", **SOON)

    @task.sensor(**SOON)
    def decorated(day=None):
        return PokeReturnValue(is_done=True, xcom_value="there")

    decorated() >> EmptyOperator(task_id="after_it")

with DAG("trouble", schedule="@daily", start_date=datetime(2024, 1, 1)):

    @task(retries=3, retry_delay=timedelta(milliseconds=10))
    def third_time_lucky(ti=None):
        if ti.try_number < 3:
            raise ConnectionError("try again")
        return ti.try_number

    @task(execution_timeout=timedelta(seconds=0.3), retries=1, retry_delay=timedelta(0))
    def too_slow():
        time.sleep(30)

    @task(
        retries=1,
        retry_delay=timedelta(milliseconds=5),
        retry_exponential_backoff=True,
        max_retry_delay=timedelta(seconds=0.1),
    )
    def backs_off():
        raise OSError("no")

    @task
    def comes_back(ti=None):
        if not counted(f"comes_back_{ti.run_id}", 3):
            raise AirflowRescheduleException(datetime.now().astimezone())
        return "at last"

    @task
    def exits():
        raise SystemExit(0)

    @task(retries=0)
    def exits_badly():
        raise SystemExit(3)

    third_time_lucky(), too_slow(), backs_off(), comes_back(), exits(), exits_badly()
    BashOperator(task_id="shell", bash_command="echo before; exit 4", retries=0)

with DAG("stopped", schedule="@daily", start_date=datetime(2024, 1, 1), fail_stop=True):

    @task
    def breaks():
        raise ValueError("stop it all")

    breaks() >> EmptyOperator(task_id="never_comes")

with DAG("late", schedule="@daily", start_date=datetime(2024, 1, 1), dagrun_timeout=timedelta(seconds=1.5)):
    BashOperator(task_id="sleeps", bash_command="sleep 60") >> EmptyOperator(task_id="waits_in_vain")
