from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from backfill.store.claims import Claim

DAY = datetime(2024, 1, 2, tzinfo=UTC)


@pytest.fixture
def make_claim() -> Callable[..., Claim]:
    """Return a function that makes the claim of one attempt, with the given fields changed."""

    def make(**changes: Any) -> Claim:
        fields: dict[str, Any] = {
            "task_instance_id": 7,
            "attempt_id": "6f1f4f0e-6a3b-4a1c-9d3e-1f0a54a7d001",
            "dag_run_id": 3,
            "dag_id": "sales",
            "task_id": "load",
            "run_id": "backfill__2024-01-02T00:00:00+00:00",
            "map_index": -1,
            "try_number": 1,
            "max_tries": 0,
            "infrastructure_failures": 0,
            "start_date": DAY,
            "first_start_date": DAY,
            "queued_at": DAY,
            "pool": "default_pool",
            "pool_slots": 1,
            "queue": "backfill",
            "executor": "celery",
            "operator": "PythonOperator",
            "priority_weight": 1,
            "logical_date": DAY,
            "data_interval_start": DAY,
            "data_interval_end": DAY + timedelta(days=1),
            "run_type": "backfill",
            "external_trigger": False,
            "conf": {"region": "north"},
            "run_start_date": DAY,
            "job_id": 1,
            "job_params": {},
            "dag_pickle_hash": None,
            "dag_source": {},
        }
        return Claim(**(fields | changes))

    return make
