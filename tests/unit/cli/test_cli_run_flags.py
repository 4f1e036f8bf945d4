"""`run`, `submit` and `resume`: what is typed becomes a request, and how the job ends becomes output and an exit code."""

from __future__ import annotations

import json
from collections import Counter
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
from backfill.cli import output, prompt, run as run_module
from backfill.cli.main import cli
from backfill.config import Settings
from backfill.dag.loader import LoadedDag
from backfill.exceptions import (
    BackfillError,
    BackfillUnfinished,
    DateOwned,
    Declined,
    Interrupted,
    JobHeld,
    NothingToDo,
    ServiceUnavailable,
)
from backfill.jobs.clear import ClearCount, ClearScope
from backfill.jobs.control import Control
from backfill.jobs.creation import ConfirmReset
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
    #: Processes of the worker that got ready meanwhile.
    standbys: list[int | None] = field(default_factory=list)
    driven: list[tuple[int, bool]] = field(default_factory=list)
    #: Whether a living process holds the job, which was paused.
    held: bool = False
    uses_celery: bool = False
    #: Endings by dag_id, errors that of the creation; those of other DAGs end well.
    endings: dict[str, Report | BackfillError] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)

    def create_job(
        self, loaded: LoadedDag, request: BackfillRequest, *, submit: bool, confirm_reset: ConfirmReset | None
    ) -> Any:
        dag_id = loaded.dag.dag_id
        if self.refusal:
            raise self.refusal
        self.ending = self.endings.get(dag_id, self.ending if not self.endings else REPORT)
        if isinstance(self.ending, BackfillError) and dag_id in self.endings:
            raise self.ending
        self.created.append(dag_id)
        if confirm_reset is not None:
            scope = ClearScope(dag=loaded.dag, start=JANUARY[0], end=JANUARY[1], task_ids=frozenset({"load"}))
            confirm_reset(scope, ClearCount(Counter(load=9), runs=9, left_running=2))
        self.requests.append(request)
        self.submitted.append(submit)
        self.telemetry.emit(Note(7, "3 dates left out."))
        return SimpleNamespace(id=7, dag_id=loaded.dag.dag_id, state=JobState.QUEUED, total_runs=31, control=Control())

    def load_job(self, job_id: int) -> Any:
        return SimpleNamespace(id=job_id, uses_celery=lambda: self.uses_celery, control=Control())

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
    monkeypatch.setattr(run_module, "standby_worker", lambda _settings, count: nullcontext(fake.standbys.append(count)))
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
        ([*RANGE, "--max-active-runs", "0"], "'0' is no whole number from 1 to 1000000000; write one that is."),
        ([*RANGE, "--max-failures", "0"], "'0' is no number from 1"),
        ([*RANGE, "--delay-on-limit", "0"], "'0' is no number of seconds above 0 and up to 86400; write one such as 0.5."),
        ([*RANGE, "--reprocess", "all"], "'all' is not one of 'none', 'failed', 'completed'"),
        ([*RANGE, "-S", "/nowhere"], "'/nowhere' does not exist"),
        ([*RANGE, "--reset-dagrun"], "No such option '--reset-dagrun'"),
        ([*RANGE, "--reset-dagruns", "--reprocess", "none"], "--reset-dagruns clears the runs that --reprocess none leaves out; leave out one of the two."),
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


RESET = (
    "This clears 9 task instances in 9 runs of DAG 'sales' from 2024-01-01 to 2024-01-31. 2 that run are left alone."
)


@pytest.mark.parametrize("command", ["run", "submit"])
def test_a_reset_names_what_it_clears_and_a_flag_answers(runtime: FakeRuntime, command: str) -> None:
    ended = backfill(command, "sales", *RANGE, "--reset-dagruns", "-y", "-o", "json")
    assert ended.exit_code == 0, ended.stderr
    assert ended.stderr.splitlines() == [RESET, "3 dates left out."]
    assert runtime.requests == [DEFAULTS]


@pytest.mark.parametrize("command", ["run", "submit"])
def test_a_reset_that_nobody_can_agree_to_makes_no_job(runtime: FakeRuntime, command: str) -> None:
    ended = backfill(command, "sales", *RANGE, "--reset-dagruns")
    assert (ended.exit_code, ended.stdout, runtime.requests) == (2, "", [])
    assert ended.stderr == f"Error: {RESET} There is no terminal to answer that from; give -y to say yes.\n"


@pytest.mark.parametrize("command", ["run", "submit"])
def test_no_to_a_reset_stops_the_command(runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr(prompt, "somebody_answers", lambda: True)
    ended = CliRunner().invoke(cli, [command, "sales", *RANGE, "--reset-dagruns"], input="n\n")
    assert (ended.exit_code, ended.stdout, runtime.requests, runtime.driven) == (5, "", [], [])
    assert ended.stderr == f"{RESET} Go on? [y/N] Error: You did not say yes; nothing was changed.\n"


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
    monkeypatch.setattr(output, "show_record", leave)
    monkeypatch.setattr(output, "forget_stdout", lambda: forgotten.append(True))
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
    assert runtime.workers == runtime.standbys == [count]


@pytest.mark.parametrize(("arguments", "count"), [([], 0), (["--workers", "3"], 3)])
def test_with_a_broker_of_others_workers_are_started_on_demand_only(
    runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch, arguments: list[str], count: int
) -> None:
    monkeypatch.setenv("BACKFILL__CELERY__BROKER_URL", "redis://broker.example.org/0")
    request_of(runtime, *arguments)
    assert runtime.workers == runtime.standbys == [count]


def test_no_worker_gets_ready_for_a_job_that_goes_to_none(runtime: FakeRuntime) -> None:
    request_of(runtime, "-l")
    assert runtime.standbys == [0]


def test_workers_that_no_task_needs_are_said_to_start_nothing(runtime: FakeRuntime) -> None:
    runtime.broker_url = ""
    said = "--workers 3 starts nothing: no task of this job goes to Celery."
    assert said in backfill("run", "sales", *RANGE, "-l", "--workers", "3").stderr
    assert said not in backfill("run", "sales", *RANGE, "-l").stderr


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


NAMES = ("sales_eu", "sales_uk", "sales_us")


@pytest.fixture
def three(runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRuntime:
    """Let three DAGs match."""
    dags = [DAG(name, schedule="@daily", start_date=datetime(2024, 1, 1, tzinfo=UTC)) for name in NAMES]
    for dag in dags:
        EmptyOperator(task_id="load", dag=dag)
    loaded = [LoadedDag(dag, tmp_path / "sales.py", "0" * 64) for dag in dags]
    monkeypatch.setattr(run_module, "find_matching", lambda *_: loaded)
    monkeypatch.setattr(run_module, "find_target", lambda *_: pytest.fail("one DAG was looked for"))
    return runtime


ALL = ("^sales_", *RANGE, "--treat-dag-id-as-regex")


def test_all_matching_dags_get_a_job_one_after_the_other_and_json_is_a_list(three: FakeRuntime) -> None:
    ended = backfill("run", *ALL, "-o", "json")
    assert ended.exit_code == 0, ended.stderr
    assert json.loads(ended.stdout) == [REPORT.to_json()] * 3
    assert three.created == list(NAMES)
    assert three.driven == [(7, False)] * 3


def test_summaries_of_several_jobs_are_shown_as_they_end(three: FakeRuntime) -> None:
    ended = backfill("run", *ALL)
    assert ended.stdout.count("Job 7 of sales: success after 1 min 00 s") == 3


def test_several_jobs_can_be_submitted(three: FakeRuntime) -> None:
    assert backfill("submit", *ALL).stdout.split() == ["7"] * 3
    records = json.loads(backfill("submit", *ALL, "-o", "json").stdout)
    assert [record["dag_id"] for record in records] == list(NAMES)
    assert three.submitted == [True] * 6


FAILED = replace(REPORT, state=JobState.FAILED)


def test_a_job_that_did_not_end_well_stops_the_rest(three: FakeRuntime) -> None:
    three.endings = {"sales_uk": FAILED}
    ended = backfill("run", *ALL, "-o", "json")
    assert ended.exit_code == 1
    assert [report["state"] for report in json.loads(ended.stdout)] == ["success", "failed"]
    assert "Not started because of that: sales_us; --continue-on-failures goes on." in ended.stderr


def test_with_continue_on_failures_the_rest_goes_on_and_the_first_bad_exit_code_counts(three: FakeRuntime) -> None:
    three.endings = {"sales_eu": replace(REPORT, state=JobState.DEADLOCKED), "sales_us": FAILED}
    ended = backfill("run", *ALL, "--continue-on-failures", "-o", "json")
    assert ended.exit_code == 3
    assert [report["state"] for report in json.loads(ended.stdout)] == ["deadlocked", "success", "failed"]


NOTHING = NothingToDo("No run date is left; nothing was started.")


def test_a_dag_without_run_dates_is_passed_over(three: FakeRuntime) -> None:
    three.endings = {"sales_eu": NOTHING}
    ended = backfill("run", *ALL, "-o", "json")
    assert (ended.exit_code, len(json.loads(ended.stdout))) == (0, 2)
    assert ended.stderr.startswith("No run date is left; nothing was started.\n")


def test_only_if_no_dag_has_anything_to_do_that_is_the_end(three: FakeRuntime) -> None:
    three.endings = dict.fromkeys(NAMES, NOTHING)
    ended = backfill("run", *ALL, "-o", "json")
    assert (ended.exit_code, json.loads(ended.stdout)) == (5, [])
    assert ended.stderr.splitlines()[-1] == (
        "Error: None of the 3 DAGs that match has anything to do; give a range that holds run dates."
    )


@pytest.mark.parametrize(
    ("flags", "jobs"), [([], ["sales_eu"]), (["--continue-on-failures"], ["sales_eu", "sales_us"])]
)
def test_a_refused_job_counts_as_one_that_did_not_end_well(
    three: FakeRuntime, flags: list[str], jobs: list[str]
) -> None:
    three.endings = {"sales_uk": DateOwned("Job 6 owns 2024-01-01; wait for it.")}
    ended = backfill("run", *ALL, *flags)
    assert (ended.exit_code, three.created) == (5, jobs)
    assert "Error: Job 6 owns 2024-01-01; wait for it.\n" in ended.stderr


@pytest.mark.parametrize("error", [ServiceUnavailable("away"), Interrupted("stop"), Declined("no")])
def test_what_ends_the_command_ends_it_for_all_dags_and_what_was_done_is_printed(
    three: FakeRuntime, error: BackfillError
) -> None:
    three.endings = {"sales_uk": error}
    ended = backfill("run", *ALL, "--continue-on-failures", "-o", "json")
    assert ended.exit_code == error.exit_code
    assert (three.created, len(json.loads(ended.stdout))) == (["sales_eu"], 1)


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("(", "'(' is no regular expression: "),
        ("^stock", "No DAG in dags has an id that matches '^stock'; there are sales."),
    ],
)
def test_a_bad_regex_and_one_without_match_are_wrong_use(
    runtime: FakeRuntime, tmp_path: Path, pattern: str, told: str
) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "sales.py").write_text("from backfill import DAG\ndag = DAG('sales')\n")
    ended = backfill("run", pattern, *RANGE, "--treat-dag-id-as-regex")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"Error: {told}")
    assert len(ended.stderr.splitlines()) == 1
