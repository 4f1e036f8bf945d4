"""The DAG of a plan (`chaos_plans`), whose tasks keep a journal outside of the system. Copied into the DAGs folder beside its plan."""

import json
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from chaos_note import note

from backfill import DAG, get_current_context
from backfill.operators import BranchPythonOperator, PythonOperator

PLAN = json.loads(Path(__file__).with_suffix(".json").read_text())
TASKS = {each["task_id"]: each for each in PLAN["tasks"]}
#: Seconds between two signs of life of a task.
TICK = 0.04


def of_day(values, ti):
    """Return the value for the day and index of a task instance."""
    return values[(ti.logical_date.day + max(0, ti.map_index)) % len(values)]


def work(**_):
    """Do what the plan says of this task instance."""
    ti = get_current_context()["ti"]
    task = TASKS[ti.task_id]
    note(PLAN["journal"], ti, "start")
    ti.log.info("%s is at work", ti.key)
    until = time.monotonic() + of_day(task["milliseconds"], ti) / 1000
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(TICK, left))
        note(PLAN["journal"], ti, "tick")
    if task["death"]:
        die(task["death"])
    if ti.try_number <= of_day(task["failing_tries"], ti):
        note(PLAN["journal"], ti, "fail")
        raise ValueError(f"try {ti.try_number} fails, as planned")
    note(PLAN["journal"], ti, "end")
    return of_day(task["returns"], ti)


def work_with(item):
    """Do the same for one of the items that a task is mapped over."""
    return work(item=item)


def die(way):
    """End this process, as an accident in C code, or the kernel when memory is short, would; or use up all memory that it may have."""
    if way == "memory":
        use_up_memory()
    if way == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.Signals[way])


def use_up_memory():
    """Take what there is until nothing is left, also for small things; whoever catches the error has to do without."""
    taken, size = [], 2**24
    while True:
        try:
            taken.append(bytearray(size))
        except MemoryError:
            if size < 2**8:
                raise
            size //= 2


def operator(task):
    """Return the operator of one task of the plan."""
    arguments = {
        "task_id": task["task_id"],
        "trigger_rule": task["trigger_rule"],
        "retries": task["retries"],
        "retry_delay": timedelta(seconds=0.2),
    }
    if task["mapped_over"]:
        source = dag.get_task(task["mapped_over"])
        return PythonOperator.partial(python_callable=work_with, **arguments).expand(op_args=source.output)
    kind = BranchPythonOperator if task["branches"] else PythonOperator
    return kind(python_callable=work, **arguments)


with DAG(PLAN["dag_id"], schedule="@daily", start_date=datetime(2024, 1, 1, tzinfo=UTC), max_active_tasks=16) as dag:
    for each in PLAN["tasks"]:
        operator(each)
    for each in PLAN["tasks"]:
        for upstream in each["after"]:
            dag.get_task(upstream) >> dag.get_task(each["task_id"])
