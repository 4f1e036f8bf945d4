"""The end of a job, told to people."""

from __future__ import annotations

from typing import Any

import pytest

from backfill.cli import summary
from backfill.cli.summary import show_summary


def error(
    kind: str, task_id: str, *, map_index: int = -1, text: str | None = None, dag_id: str = "sales"
) -> dict[str, Any]:
    return {
        "kind": kind,
        "dag_id": dag_id,
        "task_id": task_id,
        "run_id": "backfill__2024-01-04T00:00:00+00:00",
        "map_index": map_index,
        "logical_date": "2024-01-04T00:00:00+00:00",
        "try_number": 2,
        "state": kind,
        "error": text,
    }


def report(**others: Any) -> dict[str, Any]:
    return {
        "job_id": 7,
        "dag_id": "sales",
        "state": "success",
        "start_date": "2024-03-01T12:00:00+00:00",
        "end_date": "2024-03-01T12:00:08.400000+00:00",
        "runs": {"total": 31, "finished": 31, "success": 31, "failed": 0, "running": 0},
        "tasks": {
            "total": 248,
            "success": 240,
            "failed": 0,
            "skipped": 8,
            "upstream_failed": 0,
            "running": 0,
            "waiting": 0,
        },
        "rate": 29.5,
        "eta_seconds": None,
        "errors": [],
        **others,
    }


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Any:
    def tell(**others: Any) -> list[str]:
        show_summary(report(**others))
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return tell


def test_it_has_state_duration_counts_and_rate(told: Any) -> None:
    assert told() == [
        "Job 7 of sales: success after 8.4 s",
        "  runs            31 of 31 finished    31 success",
        "  task instances  248 of 248 finished  240 success, 8 skipped",
        "  rate            29.5/s",
    ]


def test_a_running_job_has_a_start_and_a_time_left(told: Any) -> None:
    lines = told(state="running", end_date=None, eta_seconds=65.0)
    assert lines[0] == "Job 7 of sales: running, since 2024-03-01 12:00:00"
    assert lines[3] == "  rate            29.5/s               1 min 05 s left"


def test_a_job_that_has_not_begun_is_told_too(told: Any) -> None:
    assert told(state="queued", start_date=None, end_date=None, rate=0.0)[0] == "Job 7 of sales: queued"


def test_causes_stand_before_consequences(told: Any) -> None:
    lines = told(
        errors=[
            error("upstream_failed", "load"),
            error("deadlocked", "total", text="waits for total of the run before"),
            error("failed", "check", text="\nValueError: 3 rows\nTraceback"),
            error("run_timed_out", ""),
        ]
    )
    headings = [line for line in lines if line.endswith("(1)")]
    assert headings == [
        "Failed (1)",
        "Runs that timed out (1)",
        "Deadlocked: these can never run (1)",
        "Not run because of that (1)",
    ]
    assert "check   2024-01-04     2   ValueError: 3 rows" in lines


def test_the_map_index_has_a_column_only_where_there_is_one(told: Any) -> None:
    assert not any("map index" in line for line in told(errors=[error("failed", "check")]))
    lines = told(errors=[error("failed", "check", map_index=0, text="x"), error("failed", "all", text="y")])
    assert [line.split() for line in lines if line.startswith(("check", "all"))] == [
        ["check", "0", "2024-01-04", "2", "x"],
        ["all", "2024-01-04", "2", "y"],
    ]


def test_the_dag_has_a_column_only_where_there_are_several(told: Any) -> None:
    lines = told(errors=[error("failed", "check"), error("failed", "check", dag_id="sales.child")])
    assert any(line.startswith("sales.child   check") for line in lines)


def test_a_long_table_is_cut_and_says_so(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "SHOWN_ERRORS", 2)
    lines = told(errors=[error("failed", f"check_{n}") for n in range(5)])
    assert "Failed (5)" in lines
    assert "  and 3 more; `backfill tasks` lists them all" in lines
    assert not any("check_2" in line for line in lines)


def test_notes_dates_not_started_and_the_hint_come_last(told: Any) -> None:
    lines = told(
        notes=["3 dates left out."],
        not_started=["2024-01-05T00:00:00+00:00", "2024-01-31T00:00:00+00:00"],
        hint="-I would let it start.",
    )
    assert [line for line in lines[4:] if line] == [
        "3 dates left out.",
        "Not started: 2 dates, 2024-01-05 to 2024-01-31.",
        "Hint: -I would let it start.",
    ]


def test_one_date_not_started_is_named(told: Any) -> None:
    assert told(not_started=["2024-01-05T00:00:00+00:00"])[-1] == "Not started: 2024-01-05."


def test_texts_of_tasks_cannot_paint_the_terminal(told: Any) -> None:
    lines = told(errors=[error("failed", "check", text="[bold]x[/bold]\x1b[31m")])
    assert any(line.endswith("[bold]x[/bold]\\x1b[31m") for line in lines)
