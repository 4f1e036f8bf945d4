"""One task that runs until somebody writes into the pipe BENCH_PIPE."""

import os
from datetime import datetime
from pathlib import Path

from backfill import DAG
from backfill.operators import PythonOperator

PIPE = os.environ.get("BENCH_PIPE", "")


def wait() -> None:
    """Wait until the other end of the pipe is closed."""
    Path(PIPE).read_bytes()


with DAG(os.environ.get("BENCH_DAG_ID", "waiting"), schedule="@daily", start_date=datetime(2024, 1, 1)) as dag:
    PythonOperator(task_id="wait", python_callable=wait)
