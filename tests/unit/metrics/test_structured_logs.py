"""Records as text and as JSON, and events as records."""

from __future__ import annotations

import io
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from backfill.config import LoggingSettings
from backfill.keys import TaskInstanceKey
from backfill.metrics import EventLog, configure_logging
from backfill.states import DagRunState, JobState, TaskInstanceState
from backfill.telemetry import (
    Dispatched,
    Event,
    JobEnded,
    JobStarted,
    Note,
    Progress,
    RunAdmitted,
    RunSettled,
    TaskInstanceEnded,
)

KEY = TaskInstanceKey("sales", "load", "backfill__2024-01-01T00:00:00+00:00", 2)


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """Give what stderr took; the logging of the test run comes back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield lambda: capsys.readouterr().err
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


Written = Callable[[], str]


def test_a_json_record_is_one_object_a_line_with_its_extras(written: Written) -> None:
    configure_logging(LoggingSettings(format="json"))
    logging.getLogger("a.b").warning("twice %s", "two", extra={"job_id": 7, "at": datetime(2024, 1, 1, tzinfo=UTC)})
    line = json.loads(written())
    assert datetime.fromisoformat(line.pop("time")).tzinfo is UTC
    assert line.pop("process") > 0
    assert line == {
        "level": "warning",
        "logger": "a.b",
        "message": "twice two",
        "job_id": 7,
        "at": "2024-01-01 00:00:00+00:00",
    }


def test_a_traceback_stays_within_its_json_line(written: Written) -> None:
    configure_logging(LoggingSettings(format="json"))
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("a").exception("it broke")
    [line] = written().splitlines()
    assert json.loads(line)["traceback"].endswith("ValueError: two\nlines")


@pytest.mark.parametrize(("tracebacks", "lines"), [(True, 5), (False, 1)])
def test_a_text_record_has_its_traceback_unless_that_is_not_wanted(
    written: Written, tracebacks: bool, lines: int
) -> None:
    configure_logging(LoggingSettings(), tracebacks=tracebacks)
    try:
        raise ValueError
    except ValueError:
        logging.getLogger("a").exception("it broke")
    text = written()
    assert len(text.splitlines()) == lines
    assert ("Traceback" in text) is tracebacks


def test_a_text_record_has_time_with_offset_level_and_logger(written: Written) -> None:
    configure_logging(LoggingSettings())
    logging.getLogger("a.b").warning("hello")
    time, rest = written().split(" ", 1)
    assert time.endswith("+00:00")
    assert rest == "WARNING a.b: hello\n"


def test_records_go_to_what_stderr_is_when_they_come(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logging(LoggingSettings())
    later = io.StringIO()
    monkeypatch.setattr(sys, "stderr", later)
    logging.getLogger("a").warning("hello")
    assert written() == ""
    assert later.getvalue().endswith("hello\n")


@pytest.mark.parametrize(
    ("level", "least", "heard"),
    [
        ("debug", logging.NOTSET, "diwe"),
        ("info", logging.NOTSET, "iwe"),
        ("ERROR", logging.NOTSET, "e"),
        ("info", logging.WARNING, "we"),
    ],
)
def test_the_level_lets_through_what_is_not_below_it(written: Written, level: str, least: int, heard: str) -> None:
    configure_logging(LoggingSettings(level=level), least)
    for name in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("a"), name)(name[0])
    assert [line[-1] for line in written().splitlines()] == list(heard)


@pytest.mark.filterwarnings("default")
def test_warnings_are_records_too(written: Written) -> None:
    configure_logging(LoggingSettings(format="json"))
    warnings.warn("mind the gap", stacklevel=1)
    line = json.loads(written())
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "mind the gap" in line["message"]


def ended(state: TaskInstanceState, error: str | None = None) -> TaskInstanceEnded:
    return TaskInstanceEnded(7, KEY, state, 2, error)


@pytest.mark.parametrize(
    ("event", "level", "message"),
    [
        (JobStarted(7, "sales", 31), logging.INFO, "job 7: started, 31 runs of sales"),
        (JobStarted(7, "sales", 31, resumed=True), logging.INFO, "job 7: going on with 31 runs of sales"),
        (JobEnded(7, JobState.SUCCESS), logging.INFO, "job 7: left in state success"),
        (JobEnded(7, JobState.FAILED), logging.WARNING, "job 7: left in state failed"),
        (RunAdmitted(7, "r"), logging.DEBUG, "job 7: run r admitted"),
        (RunSettled(7, "r", DagRunState.FAILED, "timed_out"), logging.INFO, "job 7: run r is failed (timed_out)"),
        (Dispatched(7, (KEY, KEY)), logging.DEBUG, "job 7: 2 task instances dispatched"),
        (Note(7, "left out", logging.WARNING), logging.WARNING, "job 7: left out"),
        (ended(TaskInstanceState.SUCCESS), logging.DEBUG, f"job 7: {KEY} is success after try 2"),
        (ended(TaskInstanceState.FAILED, "E: x"), logging.WARNING, f"job 7: {KEY} is failed after try 2: E: x"),
        (
            Progress(7, 3, 31, 80, 2, 10, 1, 0, 0, 4.13, 20.0),
            logging.INFO,
            "job 7: 3 of 31 runs finished; 80 task instances waiting, 2 running, 10 succeeded, 1 failed, 0 skipped, 0 deadlocked; 4.1/s",
        ),
    ],
)
def test_an_event_is_a_sentence_at_its_level(
    caplog: pytest.LogCaptureFixture, event: Event, level: int, message: str
) -> None:
    caplog.set_level(logging.DEBUG)
    EventLog()(event)
    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (level, message)
    assert vars(record)["event"] == type(event).__name__
    assert vars(record)["job_id"] == 7


def test_an_event_has_its_fields_as_extras(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    EventLog()(ended(TaskInstanceState.FAILED, "E: x"))
    extras = vars(caplog.records[0])
    assert {name: extras[name] for name in ("dag_id", "task_id", "run_id", "map_index", "state", "try_number")} == {
        **KEY._asdict(),
        "state": "failed",
        "try_number": 2,
    }


def test_what_nobody_hears_is_not_worded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    EventLog()(Dispatched(7, (KEY,)))
    assert caplog.records == []
