"""What an operator types becomes a value, or one sentence that names it and says what to write."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
import pytest

from backfill.cli.parameters import (
    CONF,
    COUNT,
    DATE,
    FAILURES,
    POOL,
    PROCESSES,
    REGEX,
    SECONDS,
    WordParameter,
)
from backfill.states import Reprocess


def converted(kind: click.ParamType[Any], text: str) -> Any:
    return kind.convert(text, None, None)


def refusal(kind: click.ParamType[Any], text: str) -> str:
    with pytest.raises(click.BadParameter) as refused:
        kind.convert(text, None, None)
    return refused.value.message


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2024-01-01", datetime(2024, 1, 1, tzinfo=UTC)),
        ("2024-01-01T06:00", datetime(2024, 1, 1, 6, tzinfo=UTC)),
        ("2024-01-01 06:00:30", datetime(2024, 1, 1, 6, 0, 30, tzinfo=UTC)),
        ("2024-01-01T06:00Z", datetime(2024, 1, 1, 6, tzinfo=UTC)),
        ("2024-01-01T06:00+02:00", datetime(2024, 1, 1, 4, tzinfo=UTC)),
        (" 2024-02-29 ", datetime(2024, 2, 29, tzinfo=UTC)),
    ],
)
def test_a_date_is_read_and_is_utc_unless_it_says_otherwise(text: str, date: datetime) -> None:
    read = converted(DATE, text)
    assert read == date
    assert read.utcoffset().total_seconds() == 0


@pytest.mark.parametrize(
    "text", ["2024-13-01", "2023-02-29", "yesterday", "", "2024-01-01T25:00", "0001-01-01T00:00+02:00"]
)
def test_what_is_no_date_is_named_with_the_forms_that_are(text: str) -> None:
    told = refusal(DATE, text)
    assert repr(text) in told
    assert "write it as 2024-01-31, 2024-01-31T06:00 or 2024-01-31T06:00+02:00." in told


def test_conf_is_an_object() -> None:
    assert converted(CONF, '{"region": "eu", "days": [1, 2]}') == {"region": "eu", "days": [1, 2]}


@pytest.mark.parametrize("text", ["[1]", '"eu"', "5", "null"])
def test_conf_of_another_kind_is_refused(text: str) -> None:
    assert refusal(CONF, text).startswith(f"{text!r} is no JSON object; write one such as ")


@pytest.mark.parametrize("text", ["{region: eu}", "", "{", '{"a": NaN}', '{"a": Infinity}'])
def test_conf_that_is_no_json_is_refused_with_the_reason(text: str) -> None:
    assert refusal(CONF, text).startswith(f"{text!r} is no JSON (")


@pytest.mark.parametrize(
    ("text", "value"), [("5", "5"), ("1", "1"), ("5%", "5%"), ("100%", "100%"), ("007", "7"), ("200", "200")]
)
def test_failures_are_a_number_or_a_percentage(text: str, value: str) -> None:
    assert converted(FAILURES, text) == value


@pytest.mark.parametrize("text", ["0", "-1", "0%", "101%", "1.5", "many", "%", ""])
def test_failures_of_another_kind_are_refused(text: str) -> None:
    assert refusal(FAILURES, text) == (
        f"{text!r} is no number from 1 and no percentage from 1% to 100%; write 5 or 5%."
    )


def test_a_regular_expression_must_compile() -> None:
    assert converted(REGEX, "^load_.*") == "^load_.*"
    assert refusal(REGEX, "load_(") == (
        "'load_(' is no regular expression: missing ), unterminated subpattern at position 5; correct it, or quote it for the shell."
    )


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1.5", "1000000001"])
def test_a_count_of_another_kind_is_refused_with_what_it_may_be(text: str) -> None:
    assert refusal(COUNT, text) == f"{text!r} is no whole number from 1 to 1000000000; write one that is."


@pytest.mark.parametrize("text", ["-1", "x", "1.5"])
def test_processes_are_none_or_more(text: str) -> None:
    assert converted(PROCESSES, "0") == 0
    assert refusal(PROCESSES, text) == f"{text!r} is no whole number from 0; write one that is."


@pytest.mark.parametrize("text", ["0", "-1", "86401", "inf", "nan", "x", ""])
def test_seconds_of_another_kind_are_refused_with_what_they_may_be(text: str) -> None:
    assert refusal(SECONDS, text) == f"{text!r} is no number of seconds above 0 and up to 86400; write one such as 0.5."


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_name_of_a_pool_does_not_mean_the_pools_of_the_tasks(text: str) -> None:
    assert converted(POOL, "etl") == "etl"
    assert refusal(POOL, text) == f"{text!r} is no name of a pool; name one that `backfill pools list` shows."


def test_the_words_of_an_enum_are_taken_not_the_names_of_its_members() -> None:
    assert converted(WordParameter(Reprocess), "completed") is Reprocess.COMPLETED
    assert "'COMPLETED' is not one of 'none', 'failed', 'completed'." in refusal(WordParameter(Reprocess), "COMPLETED")
