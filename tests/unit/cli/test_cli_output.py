"""The four forms of data."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from backfill.cli.output import Column, Format, show_record, show_rows

ROWS = [
    {
        "pool": "default_pool",
        "slots": 128,
        "since": datetime(2024, 1, 1, 6, tzinfo=UTC),
        "note": "a\tb\nc",
        "more": [1],
    },
    {"pool": "[red]x[/red]", "slots": -1, "since": None, "note": "", "more": []},
]
COLUMNS = (Column("pool"), Column("slots", right=True), Column("since", "in use since"), Column("note"))


def test_json_has_every_key_and_iso_times(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows(ROWS, COLUMNS, Format.JSON)
    assert json.loads(capsys.readouterr().out)[0] == {
        "pool": "default_pool",
        "slots": 128,
        "since": "2024-01-01T06:00:00+00:00",
        "note": "a\tb\nc",
        "more": [1],
    }


def test_yaml_says_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows(ROWS, COLUMNS, Format.JSON)
    as_json = json.loads(capsys.readouterr().out)
    show_rows(ROWS, COLUMNS, Format.YAML)
    assert yaml.safe_load(capsys.readouterr().out) == as_json


def test_plain_is_one_line_per_row_with_tabs_and_a_first_line_of_keys(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows(ROWS, COLUMNS, Format.PLAIN)
    assert capsys.readouterr().out.splitlines() == [
        "pool\tslots\tsince\tnote",
        "default_pool\t128\t2024-01-01T06:00:00+00:00\ta b c",
        "[red]x[/red]\t-1\t\t",
    ]


def test_a_table_has_headings_and_reads_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows(ROWS, COLUMNS, Format.TABLE)
    told = capsys.readouterr().out
    assert told.splitlines()[0].split() == ["pool", "slots", "in", "use", "since", "note"]
    assert "[red]x[/red]" in told
    assert "2024-01-01 06:00:00" in told


def test_no_rows_are_told_to_people_on_stderr_and_to_programs_as_an_empty_list(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_rows([], COLUMNS, Format.TABLE, empty="There are no pools.")
    assert capsys.readouterr() == ("", "There are no pools.\n")
    show_rows([], COLUMNS, Format.JSON)
    assert capsys.readouterr() == ("[]\n", "")
    show_rows([], COLUMNS, Format.PLAIN)
    assert capsys.readouterr() == ("pool\tslots\tsince\tnote\n", "")


def test_a_record_is_nested_for_programs_and_flat_in_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    record = {
        "job_id": 1,
        "runs": {"total": 2, "rate": 1.5},
        "late": True,
        "took": timedelta(seconds=2),
        "at": Path("/x"),
    }
    show_record(record, Format.JSON, as_table=pytest.fail)
    assert json.loads(capsys.readouterr().out) == {**record, "took": 2.0, "at": "/x"}
    show_record(record, Format.PLAIN, as_table=pytest.fail)
    assert capsys.readouterr().out == "job_id\t1\nruns.total\t2\nruns.rate\t1.5\nlate\tyes\ntook\t2.0\nat\t/x\n"


def test_what_has_no_json_form_is_an_error_of_the_program() -> None:
    with pytest.raises(TypeError, match="object has no JSON form"):
        show_rows([{"pool": object()}], COLUMNS, Format.JSON)
