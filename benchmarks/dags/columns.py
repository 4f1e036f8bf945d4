"""100 tasks in ten chains of ten, hourly, 64 runs at a time."""

import os
from datetime import datetime

from backfill import DAG
from backfill.operators import PythonOperator

LENGTH = 10


def work() -> None:
    """Nothing."""


with DAG(
    os.environ.get("BENCH_DAG_ID", "columns"),
    schedule="@hourly",
    start_date=datetime(2024, 1, 1),
    max_active_runs=64,
    max_active_tasks=128,
) as dag:
    for column in range(10):
        above = None
        for row in range(LENGTH):
            task = PythonOperator(task_id=f"task_{column}_{row}", python_callable=work)
            if above is not None:
                above >> task
            above = task
