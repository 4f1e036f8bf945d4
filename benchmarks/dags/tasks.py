"""BENCH_TASKS tasks that know nothing of each other; each sleeps for BENCH_SECONDS, or returns at once."""

import os
import time
from datetime import datetime

from backfill import DAG
from backfill.operators import PythonOperator

SECONDS = float(os.environ.get("BENCH_SECONDS", "0"))


def work() -> None:
    """Sleep, if at all."""
    if SECONDS:
        time.sleep(SECONDS)


with DAG(
    os.environ.get("BENCH_DAG_ID", "tasks"),
    schedule="@daily",
    start_date=datetime(2024, 1, 1),
    max_active_runs=64,
    max_active_tasks=int(os.environ.get("BENCH_IN_FLIGHT", "128")),
) as dag:
    for number in range(int(os.environ.get("BENCH_TASKS", "10"))):
        PythonOperator(task_id=f"task_{number:03}", python_callable=work)
