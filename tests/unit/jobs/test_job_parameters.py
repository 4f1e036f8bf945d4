"""Values of a wrong type given to `BackfillJob` are one sentence that names the parameter."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from backfill import DAG
from backfill.exceptions import UsageError
from backfill.jobs import BackfillJob
from backfill.jobs.parameters import check_parameters
from backfill.jobs.request import BackfillRequest

START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def dag() -> DAG:
    return DAG("sales", schedule="@daily", start_date=START)


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("start_date", "2024-01-01", "a datetime"),
        ("end_date", 20240101, "a datetime"),
        ("max_active_runs", "x", "a whole number from 1"),
        ("max_active_runs", True, "a whole number from 1"),
        ("conf", ["eu"], "a dict that JSON can hold"),
        ("conf", {"at": START}, "a dict that JSON can hold"),
        ("conf", {"share": float("nan")}, "a dict that JSON can hold"),
        ("conf", {1: "eu"}, "a dict that JSON can hold"),
        ("reprocess", "all", "none or failed or completed"),
        ("reprocess", 3, "none or failed or completed"),
        ("max_failures", 0.5, "a whole number from 1 or a percentage such as 5%"),
        ("delay_on_limit_secs", "1", "seconds above 0"),
        ("pool", 3, "a text"),
        ("task_regex", b"load", "a text"),
        ("mark_success", "yes", "True or False"),
        ("run_backwards", None, "True or False"),
    ],
)
def test_a_value_of_a_wrong_type_is_one_sentence(dag: DAG, name: str, value: Any, takes: str) -> None:
    with pytest.raises(UsageError, match=rf"^{name} is {re.escape(repr(value))}; it takes {takes}\.$"):
        BackfillJob(dag, **{name: value})


def test_an_executor_or_a_dag_that_is_none_is_named(dag: DAG) -> None:
    with pytest.raises(UsageError, match=r"^executor is 'local'; it takes an executor such as LocalExecutor\(\)\.$"):
        BackfillJob(dag, executor="local")
    with pytest.raises(UsageError, match=r"^dag is 'sales'; it takes a DAG\.$"):
        BackfillJob("sales")


def test_what_fits_is_let_through(dag: DAG) -> None:
    job = BackfillJob(dag, START, START, max_failures=5, reprocess="failed", conf={"a": [1]}, delay_on_limit_secs=2)
    assert (job.request.max_failures, job.request.reprocess) == ("5", "failed")


def test_every_parameter_of_a_request_is_checked() -> None:
    for name in BackfillRequest.__dataclass_fields__:
        with pytest.raises(UsageError, match=f"^{name} is "):
            check_parameters({name: object()})
