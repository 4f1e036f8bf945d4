"""Whether and when a try follows (S6.2, S6.3)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha1
from typing import Any

import pytest

from backfill.dag import DAG
from backfill.engine.retries import is_eligible, retry_delay
from backfill.operators import EmptyOperator

DATE = datetime(2024, 1, 1, tzinfo=UTC)


def delay(*, logical_date: datetime = DATE, try_number: int = 1, **arguments: Any) -> timedelta:
    """Return the delay of the task `t` of the DAG `d`, made with `arguments`."""
    with DAG("d", schedule=None):
        task = EmptyOperator(task_id="t", **{"retry_exponential_backoff": True} | arguments)
    return retry_delay(task, logical_date, try_number)


@pytest.mark.parametrize(
    ("retries", "try_number", "max_tries", "disabled", "eligible"),
    [
        (0, 1, 0, False, False),
        (0, 1, 5, False, False),
        (2, 1, 2, False, True),
        (2, 2, 2, False, True),
        (2, 3, 2, False, False),
        (2, 3, 4, False, True),
        (2, 1, 2, True, False),
    ],
)
def test_a_task_with_retries_gets_one_try_more_than_these(
    retries: int, try_number: int, max_tries: int, disabled: bool, eligible: bool
) -> None:
    found = is_eligible(retries=retries, try_number=try_number, max_tries=max_tries, disable_retry=disabled)
    assert found is eligible


def test_without_backoff_the_delay_is_the_same_each_time() -> None:
    assert delay(retry_exponential_backoff=False, try_number=7, max_retry_delay=timedelta(1)) == timedelta(seconds=300)


@pytest.mark.parametrize(("try_number", "base"), [(1, 300), (2, 600), (5, 4800)])
def test_backoff_doubles_and_adds_what_the_hash_says(try_number: int, base: int) -> None:
    number = int(sha1(f"d#t#2024-01-01 00:00:00+00:00#{try_number}".encode()).hexdigest(), 16)
    assert delay(try_number=try_number) == timedelta(seconds=base + number % base)


def test_exact_delays_for_known_inputs() -> None:
    assert [delay(try_number=n).total_seconds() for n in (1, 2, 3)] == [521, 817, 1518]


def test_the_hash_takes_the_date_in_utc() -> None:
    elsewhere = DATE.astimezone(timezone(timedelta(hours=5)))
    assert delay(logical_date=elsewhere) == delay()


@pytest.mark.parametrize("seconds", [0, 0.2, 1])
def test_the_base_is_at_least_a_second_and_rounded_up(seconds: float) -> None:
    assert delay(retry_delay=timedelta(seconds=seconds)) == timedelta(seconds=1)
    assert timedelta(seconds=2) <= delay(retry_delay=timedelta(seconds=1.2)) < timedelta(seconds=4)


@pytest.mark.parametrize("try_number", [20, 64, 5000])
def test_a_day_is_the_longest_wait_however_many_tries(try_number: int) -> None:
    assert delay(try_number=try_number) == timedelta(days=1)


def test_the_longest_delay_of_the_task_comes_last() -> None:
    assert delay(try_number=9, max_retry_delay=timedelta(minutes=7)) == timedelta(minutes=7)
    assert delay(try_number=64, max_retry_delay=timedelta(days=3)) == timedelta(days=1)
