"""`run`, `submit` and `resume`: what is typed becomes a request, and how the job ends becomes output and an exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from backfill import DAG
from backfill.cli import run as run_module
from backfill.cli.main import cli
from backfill.config import Settings
from backfill.dag.loader import LoadedDag
from backfill.exceptions import BackfillUnfinished, DateOwned, Interrupted, JobHeld, ServiceUnavailable
from backfill.jobs.report import Report
from backfill.jobs.request import BackfillRequest
from backfill.operators import EmptyOperator
from backfill.states import JobState, Reprocess
from backfill.telemetry import JobStarted, Note, Telemetry

JANUARY = (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 31, tzinfo=UTC))
RANGE = ("-s", "2024-01-01", "-e", "2024-01-31")
REPORT = Report(
    job_id=7,
    dag_id="sales",
    state=JobState.SUCCESS,
    start_date=datetime(2024, 3, 1, 12, tzinfo=UTC),
    end_date=datetime(2024, 3, 1, 12, 1, tzinfo=UTC),
    runs={"total": 31, "finished": 31, "success": 31, "failed": 0, "running": 0},
    tasks={"total": 93, "success": 93, "failed": 0, "skipped": 0, "upstream_failed": 0, "running": 0, "waiting": 0},
    rate=41.2,
)


@dataclass
class FakeRuntime:
    """Takes what the command asks for and ends as it is told to."""

    settings: Settings = field(default_factory=Settings)
    telemetry: Telemetry = field(default_factory=Telemetry)
    broker_url: str = ""
    ending: Report | BaseException = REPORT
    refusal: BaseException | None = None
    opened_with: dict[str, bool] = field(default_factory=dict)
    requests: list[BackfillRequest] = field(default_factory=list)
    submitted: list[bool] = field(default_factory=list)
    workers: list[int | None] = field(default_factory=list)
    driven: list[tuple[int, bool]] = field(default_factory=list)
    #: Whether a living process holds the job, which was paused.
    held: bool = False
    uses_celery: bool = False

    def create_job(self, loaded: LoadedDag, request: BackfillRequest, *, submit: bool) -> Any:
        if self.refusal:
            raise self.refusal
        self.requests.append(request)
        self.submitted.append(submit)
        self.telemetry.emit(Note(7, "3 dates left out."))
        return SimpleNamespace(id=7, dag_id=loaded.dag.dag_id, state=JobState.QUEUED, total_runs=31)

    def load_job(self, job_id: int) -> Any:
        return SimpleNamespace(id=job_id, uses_celery=lambda: self.uses_celery)

    def reach_broker(self) -> None:
        self.broker_url = "redis://broker.example.org/0"

    def take_over(self, job: Any) -> bool:
        self.telemetry.emit(Note(job.id, "Job 7 is held."))
        return not self.held

    def report(self, job_id: int) -> Report:
        return replace(REPORT, job_id=job_id, state=JobState.RUNNING)

    def local_workers(self, count: int | None) -> Any:
        self.workers.append(count)
        return nullcontext()

    def drive(self, job: Any, *, resume: bool = False) -> Report:
        self.driven.append((job.id, resume))
        self.telemetry.emit(JobStarted(7, "sales", 31, resume))
        if isinstance(self.ending, BaseException):
            raise self.ending
        if self.ending.state is not JobState.SUCCESS:
            raise BackfillUnfinished(self.ending.sentence(), self.ending, self.ending.exit_code)
        return self.ending


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRuntime:
    """Put a runtime without servers, and a DAG without a file, behind the command."""
    monkeypatch.setenv("BACKFILL_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    fake = FakeRuntime()

    @contextmanager
    def open_runtime(settings: Settings, **asked: bool) -> Iterator[FakeRuntime]:
        fake.opened_with = asked
        fake.settings = settings
        yield fake

    with DAG("sales", schedule="@daily", start_date=datetime(2024, 1, 1, tzinfo=UTC)) as dag:
        EmptyOperator(task_id="load")
    loaded = LoadedDag(dag, tmp_path / "sales.py", "0" * 64)
    monkeypatch.setattr(run_module, "open_runtime", open_runtime)
    monkeypatch.setattr(run_module, "find_target", lambda *_: loaded)
    return fake


def backfill(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="backfill")


def request_of(runtime: FakeRuntime, *arguments: str) -> BackfillRequest:
    ended = backfill("run", "sales", *RANGE, *arguments)
    assert ended.exit_code == 0, ended.stderr
    return runtime.requests[-1]


DEFAULTS = BackfillRequest(start_date=JANUARY[0], end_date=JANUARY[1], ignore_first_depends_on_past=True)


def test_the_defaults_are_those_of_the_flags_one_by_one(runtime: FakeRuntime) -> None:
    assert request_of(runtime) == DEFAULTS


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        (["-t", "^load"], {"task_regex": "^load"}),
        (["--task-regex", "^load"], {"task_regex": "^load"}),
        (["-i"], {"ignore_dependencies": True, "ignore_task_deps": True}),
        (["--ignore-dependencies"], {"ignore_dependencies": True, "ignore_task_deps": True}),
        (["-m"], {"mark_success": True}),
        (["--mark-success"], {"mark_success": True}),
        (["-l"], {"executor": "local"}),
        (["--local"], {"executor": "local"}),
        (["-l", "--executor", "local"], {"executor": "local"}),
        (["--executor", "local"], {"executor": "local"}),
        (["--executor", "celery"], {}),
        (["-x"], {"donot_pickle": True}),
        (["--donot-pickle"], {"donot_pickle": True}),
        (["-y"], {}),
        (["--yes"], {}),
        (["-I"], {}),
        (["--ignore-first-depends-on-past"], {}),
        (["--no-ignore-first-depends-on-past"], {"ignore_first_depends_on_past": False}),
        (["--pool", "small"], {"pool": "small"}),
        (["--delay-on-limit", "0.5"], {"delay_on_limit_secs": 0.5}),
        (["-v"], {"verbose": True}),
        (["--verbose"], {"verbose": True}),
        (["-c", '{"a": 1}'], {"conf": {"a": 1}}),
        (["--conf", "{}"], {"conf": {}}),
        (["--continue-on-failures"], {"continue_on_failures": True}),
        (["--disable-retry"], {"disable_retry": True}),
        (["--rerun-failed-tasks"], {"rerun_failed_tasks": True}),
        (["-B"], {"run_backwards": True}),
        (["--run-backwards"], {"run_backwards": True}),
        (["--max-active-runs", "3"], {"max_active_runs": 3}),
        (["--reprocess", "none"], {"reprocess": Reprocess.NONE}),
        (["--reprocess", "failed"], {"reprocess": Reprocess.FAILED}),
        (["--reprocess", "completed"], {"reprocess": Reprocess.COMPLETED}),
        (["--max-failures", "5%"], {"max_failures": "5%"}),
        (["--run-at-least-once"], {"run_at_least_once": True}),
    ],
)
def test_each_flag_alone_changes_what_it_names(
    runtime: FakeRuntime, arguments: list[str], changed: dict[str, Any]
) -> None:
    assert request_of(runtime, *arguments) == replace(DEFAULTS, **changed)


@pytest.mark.parametrize("flag", ["-s", "-e", "--start-date", "--end-date"])
def test_one_date_stands_for_both(runtime: FakeRuntime, flag: str) -> None:
    assert backfill("run", "sales", flag, "2024-01-01T06:00+02:00").exit_code == 0
    date = datetime(2024, 1, 1, 4, tzinfo=UTC)
    assert (runtime.requests[0].start_date, runtime.requests[0].end_date) == (date, date)


@pytest.mark.parametrize("command", ["run", "submit"])
def test_without_a_date_no_dag_is_loaded(runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr(run_module, "find_target", lambda *_: pytest.fail("it was looked for"))
    ended = backfill(command, "sales")
    assert ended.exit_code == 2
    assert ended.stderr == "Error: No date is given; name the range with -s/--start-date and -e/--end-date.\n"


@pytest.mark.parametrize("command", ["run", "submit"])
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-s", "2024-02-01", "-e", "2024-01-01"], "The start date 2024-02-01T00:00:00+00:00 lies after the end date 2024-01-01T00:00:00+00:00; swap -s and -e."),
        (["-s", "2024-13-01"], "'2024-13-01' is no date; write it as 2024-01-31"),
        ([*RANGE, "-c", "[1]"], "'[1]' is no JSON object"),
        ([*RANGE, "-c", "{a: 1}"], "'{a: 1}' is no JSON"),
        ([*RANGE, "-t", "load_("], "'load_(' is no regular expression"),
        ([*RANGE, "-l", "--executor", "celery"], "-l means --executor local, but --executor celery is given; leave one of them out."),
        ([*RANGE, "--executor", "dask"], "'dask' is not one of 'celery', 'local'"),
        ([*RANGE, "--max-active-runs", "0"], "0 is not in the range x>=1"),
        ([*RANGE, "--max-failures", "0"], "'0' is no number from 1"),
        ([*RANGE, "--delay-on-limit", "0"], "0.0 is not in the range x>0"),
        ([*RANGE, "--reprocess", "all"], "'all' is not one of 'none', 'failed', 'completed'"),
        ([*RANGE, "-S", "/nowhere"], "'/nowhere' does not exist"),
        ([*RANGE, "--reset-dagrun"], "No such option '--reset-dagrun'"),
        ([*RANGE, "--reset-dagruns"], "--reset-dagruns is not available in this version; run the command without it."),
        ([*RANGE, "--treat-dag-id-as-regex"], "--treat-dag-id-as-regex is not available in this version; run the command without it."),
    ],
)  # fmt: skip
def test_wrong_use_is_one_sentence_and_exit_code_2(
    runtime: FakeRuntime, command: str, arguments: list[str], told: str
) -> None:
    ended = backfill(command, "sales", *arguments)
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert told in ended.stderr.splitlines()[-1]
    assert runtime.requests == []


def test_a_job_that_ended_well_is_summed_up_on_stdout(runtime: FakeRuntime) -> None:
    ended = backfill("run", "sales", *RANGE)
    assert ended.exit_code == 0
    assert ended.stdout.splitlines()[0] == "Job 7 of sales: success after 1 min 00 s"
    assert ended.stderr == "3 dates left out.\n"
    assert runtime.driven == [(7, False)]


def test_json_is_the_report_and_nothing_else(runtime: FakeRuntime) -> None:
    ended = backfill("run", "sales", *RANGE, "-o", "json")
    assert json.loads(ended.stdout) == REPORT.to_json()


@pytest.mark.parametrize(("state", "code"), [(JobState.FAILED, 1), (JobState.DEADLOCKED, 3), (JobState.CANCELLED, 4)])
@pytest.mark.parametrize("form", ["table", "json"])
def test_another_end_is_summed_up_too_and_has_its_exit_code(
    runtime: FakeRuntime, state: JobState, code: int, form: str
) -> None:
    runtime.ending = replace(REPORT, state=state)
    ended = backfill("run", "sales", *RANGE, "-o", form)
    assert ended.exit_code == code
    assert str(state) in ended.stdout
    assert ("Job 7 " in ended.stderr) is (form == "json")
    assert "resume" not in ended.stderr


def test_a_refused_job_prints_no_data(runtime: FakeRuntime) -> None:
    runtime.refusal = DateOwned("Job 6 owns 2024-01-01; wait for it.")
    ended = backfill("run", "sales", *RANGE, "-o", "json")
    assert (ended.exit_code, ended.stdout) == (5, "")
    assert ended.stderr == "Error: Job 6 owns 2024-01-01; wait for it.\n"


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (Interrupted("The job was interrupted by SIGINT."), 130),
        (ServiceUnavailable("The database at db does not answer."), 69),
        (RuntimeError("a mistake of ours"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_a_drive_that_ends_without_the_job_says_how_to_resume_it(
    runtime: FakeRuntime, ending: BaseException, code: int
) -> None:
    runtime.ending = ending
    ended = backfill("run", "sales", *RANGE)
    assert ended.exit_code == code
    assert ended.stderr.endswith(".\nJob 7 can be resumed: backfill resume 7\n")


def test_a_job_that_another_took_over_is_left_to_it(runtime: FakeRuntime) -> None:
    runtime.ending = JobHeld("Job 7 is driven by another coordinator.")
    ended = backfill("run", "sales", *RANGE)
    assert ended.exit_code == 75
    assert "resume" not in ended.stderr


def test_a_reader_that_left_does_not_change_the_exit_code(
    runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*_: Any, **__: Any) -> None:
        raise BrokenPipeError

    forgotten: list[bool] = []
    monkeypatch.setattr(run_module, "show_record", leave)
    monkeypatch.setattr(run_module, "forget_stdout", lambda: forgotten.append(True))
    runtime.ending = replace(REPORT, state=JobState.FAILED)
    assert backfill("run", "sales", *RANGE).exit_code == 1
    assert forgotten == [True]


def test_the_broker_is_left_alone_where_no_task_needs_it(runtime: FakeRuntime) -> None:
    for command in ("run", "submit"):
        backfill(command, "sales", *RANGE)
        assert runtime.opened_with == {"broker": True}
        backfill(command, "sales", *RANGE, "--executor", "local")
        assert runtime.opened_with == {"broker": False}
    backfill("resume", "7")
    assert runtime.opened_with == {"broker": False}


@pytest.mark.parametrize(("arguments", "count"), [([], None), (["--workers", "3"], 3), (["--workers", "0"], 0)])
def test_with_the_embedded_broker_workers_are_started(
    runtime: FakeRuntime, arguments: list[str], count: int | None
) -> None:
    request_of(runtime, *arguments)
    assert runtime.workers == [count]


@pytest.mark.parametrize(("arguments", "count"), [([], 0), (["--workers", "3"], 3)])
def test_with_a_broker_of_others_workers_are_started_on_demand_only(
    runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch, arguments: list[str], count: int
) -> None:
    monkeypatch.setenv("BACKFILL__CELERY__BROKER_URL", "redis://broker.example.org/0")
    request_of(runtime, *arguments)
    assert runtime.workers == [count]


def test_that_nobody_listens_is_said(runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.broker_url = "redis://broker.example.org/0"
    monkeypatch.setattr(run_module, "a_worker_listens", lambda *_: False)
    assert "No worker listens yet; start one with `backfill worker`.\n" in backfill("run", "sales", *RANGE).stderr


def test_events_are_json_lines_where_that_is_asked_for(runtime: FakeRuntime) -> None:
    ended = backfill("run", "sales", *RANGE, "--log-format", "json")
    events = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [event["event"] for event in events] == ["Note", "JobStarted"]


def test_submit_prints_the_id_of_the_job(runtime: FakeRuntime) -> None:
    ended = backfill("submit", "sales", *RANGE)
    assert (ended.exit_code, ended.stdout) == (0, "7\n")
    assert "backfill status 7" in ended.stderr
    assert runtime.submitted == [True]
    assert runtime.driven == []


def test_submit_as_json_has_the_state_too(runtime: FakeRuntime) -> None:
    ended = backfill("submit", "sales", *RANGE, "-o", "json")
    assert json.loads(ended.stdout) == {"job_id": 7, "dag_id": "sales", "state": "queued", "total_runs": 31}


def test_resume_drives_the_job_on_and_ends_as_run_does(runtime: FakeRuntime) -> None:
    runtime.ending = replace(REPORT, state=JobState.DEADLOCKED)
    ended = backfill("resume", "7", "-o", "json")
    assert ended.exit_code == 3
    assert json.loads(ended.stdout)["state"] == "deadlocked"
    assert runtime.driven == [(7, True)]


def test_resume_reaches_the_broker_of_a_job_that_needs_one(
    runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "a_worker_listens", lambda *_: True)
    runtime.uses_celery = True
    assert backfill("resume", "7").exit_code == 0
    assert runtime.broker_url


def test_resume_of_a_job_whose_holder_lives_lifts_its_pause_and_ends(runtime: FakeRuntime) -> None:
    runtime.held = True
    ended = backfill("resume", "7")
    assert (ended.exit_code, ended.stdout) == (
        0,
        "The pause of job 7 is lifted; the process that drives it goes on.\n",
    )
    assert "Job 7 is held." in ended.stderr
    assert json.loads(backfill("resume", "7", "-o", "json").stdout)["state"] == "running"
    assert runtime.driven == []


def test_a_job_is_a_number(runtime: FakeRuntime) -> None:
    ended = backfill("resume", "seven")
    assert ended.exit_code == 2
    assert "'seven' is no number of a job; `backfill list` shows the jobs." in ended.stderr
