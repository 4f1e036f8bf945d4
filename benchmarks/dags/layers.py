"""Two layers of BENCH_WIDTH tasks; each task of the second waits for BENCH_FAN of the first, for all of them by default."""

import os
from datetime import datetime

from backfill import DAG
from backfill.operators import PythonOperator

WIDTH = int(os.environ.get("BENCH_WIDTH", "300"))
FAN = int(os.environ.get("BENCH_FAN", str(WIDTH)))


def work() -> None:
    """Nothing."""


with DAG(
    os.environ.get("BENCH_DAG_ID", "layers"),
    schedule="@daily",
    start_date=datetime(2024, 1, 1),
    max_active_runs=16,
    max_active_tasks=128,
) as dag:
    first = [PythonOperator(task_id=f"first_{number:03}", python_callable=work) for number in range(WIDTH)]
    for number in range(WIDTH):
        [first[(number + step) % WIDTH] for step in range(FAN)] >> PythonOperator(
            task_id=f"second_{number:03}", python_callable=work
        )
