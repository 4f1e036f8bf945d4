"""A task that is mapped over what another one returns: BENCH_ITEMS items."""

import os
from datetime import datetime

from backfill import DAG, task

ITEMS = int(os.environ.get("BENCH_ITEMS", "10000"))

with DAG(
    os.environ.get("BENCH_DAG_ID", "mapped"), schedule="@daily", start_date=datetime(2024, 1, 1), max_active_tasks=128
) as dag:

    @task
    def items() -> list[int]:
        """Return what is mapped over."""
        return list(range(ITEMS))

    @task
    def each(item: int) -> None:
        """Nothing."""

    each.expand(item=items())
