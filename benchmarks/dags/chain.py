"""BENCH_TASKS tasks in one chain, one run at a time, so that never more than one task instance can go."""

import os
from datetime import datetime

from backfill import DAG, chain
from backfill.operators import PythonOperator


def work() -> None:
    """Nothing."""


with DAG(
    os.environ.get("BENCH_DAG_ID", "chain"), schedule="@daily", start_date=datetime(2024, 1, 1), max_active_runs=1
) as dag:
    chain(
        *(
            PythonOperator(task_id=f"task_{number:03}", python_callable=work)
            for number in range(int(os.environ.get("BENCH_TASKS", "50")))
        )
    )
