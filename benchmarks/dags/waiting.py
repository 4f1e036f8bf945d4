"""One task that runs until somebody writes into the pipe BENCH_PIPE."""

import os
from datetime import datetime

from backfill import DAG
from backfill.operators import PythonOperator

PIPE = os.environ.get("BENCH_PIPE", "")


def wait() -> None:
    with open(PIPE) as pipe:
        pipe.read()


with DAG(os.environ.get("BENCH_DAG_ID", "waiting"), schedule="@daily", start_date=datetime(2024, 1, 1)) as dag:
    PythonOperator(task_id="wait", python_callable=wait)
