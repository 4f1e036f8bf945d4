"""One command with servers and workers of its own, in a home of its own, and what it leaves behind."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lifecycle_stage import QUICK, Stage
from processes import Command

from backfill.config import Settings
from backfill.embedded.processes import processes_in


@pytest.fixture
def stage(home: Path, tmp_path: Path, wait_until: Callable[..., None]) -> Iterator[Stage]:
    """Return a stage whose commands start servers of their own in a home of their own."""
    place = {"core.home": home, "core.dags_folder": tmp_path / "dags"}
    stage = Stage(Settings().override("the test", {**QUICK, **place}), tmp_path, wait_until)
    yield stage
    stage.close()


def servers_of(home: Path) -> list[int]:
    """Return the processes of the home's servers."""
    return [pid for name in ("postgres", "valkey") for pid in processes_in(home / "embedded" / "data" / name)]


def job_of(run: Command) -> str:
    """Return the id of the job that an interrupted command says how to resume."""
    told = re.fullmatch(r"Job (\d+) can be resumed: backfill resume \1", run.told.splitlines()[-1])
    assert told, run.told
    return told[1]


@pytest.mark.parametrize(
    "flags", [pytest.param(["--local"], marks=pytest.mark.slow), ["--workers", "2"]], ids=["local", "celery"]
)
def test_an_interrupted_command_leaves_nothing_behind_and_can_be_resumed(
    stage: Stage, home: Path, flags: list[str]
) -> None:
    stage.hold()
    run = stage.run(3, *flags)
    stage.wait_for_starts(2)
    run.send(signal.SIGINT)
    assert run.end() == 130
    assert (stage.left(), servers_of(home)) == ({}, [])
    stage.let_go()
    resumed = stage.start("resume", job_of(run), "--workers", "2", "-o", "json")
    assert resumed.end() == 0, resumed.told
    assert json.loads(resumed.printed)["tasks"]["success"] == 6
    stage.assert_each_ended_once(3)
    assert (stage.left(), servers_of(home)) == ({}, [])


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--local"], ["--workers", "2"]], ids=["local", "celery"])
def test_what_a_killed_command_started_goes_by_itself_and_its_servers_are_used_again(
    stage: Stage, home: Path, flags: list[str]
) -> None:
    stage.hold()
    run = stage.run(2, *flags)
    stage.wait_for_starts(2)
    run.process.kill()
    stage.wait_until(lambda: not stage.left(), "only servers are left", timeout=15)
    assert servers_of(home)
    stage.let_go()
    resumed = stage.start("resume", "1", "--workers", "2")
    assert resumed.end() == 0, resumed.told
    stage.assert_each_ended_once(2)
    assert (stage.left(), servers_of(home)) == ({}, [])


@pytest.mark.slow
def test_a_second_interrupt_kills_the_worker_of_the_command(stage: Stage) -> None:
    stage.hold()
    (stage.here / "stubborn").touch()
    worker_log = stage.settings.core.home / "logs" / "worker.log"
    run = stage.run(2, "--workers", "2", worker__soft_shutdown_timeout=60)
    stage.wait_for_starts(2)
    run.send(signal.SIGINT)
    stage.wait_until(lambda: "stops: its tasks have" in worker_log.read_text(), "the worker stops")
    run.send(signal.SIGINT)
    assert run.end(10) == 130
    assert job_of(run) == "1"
    assert stage.left() == {}


SCRIPT = """
import sys
from datetime import datetime
from pathlib import Path

from backfill import DAG, task
from backfill.executors import LocalExecutor
from backfill.jobs import BackfillJob, BackfillUnfinished

with DAG("in_memory", schedule="@daily", start_date=datetime(2024, 1, 1)) as dag:

    @task
    def double(day):
        if day == "2024-01-03":
            raise ValueError("there is no third day")
        return 2 * int(day[-2:])

    @task
    def write(number):
        Path(f"written_{number}").touch()

    write(double("{{ ds }}"))

if __name__ == "__main__":
    days = int(sys.argv[1])
    job = BackfillJob(
        dag=dag, start_date=datetime(2024, 1, 1), end_date=datetime(2024, 1, days), executor=LocalExecutor()
    )
    try:
        report = job.run()
    except BackfillUnfinished as unfinished:
        report = unfinished.report
        print("unfinished", unfinished)
    print(job.id, job.state, dict(report.tasks), [error.error for error in report.errors])
"""


def test_a_script_runs_a_dag_that_it_defines_itself(stage: Stage, home: Path) -> None:
    (stage.here / "script.py").write_text(SCRIPT)
    well = stage.start_program([sys.executable, "script.py", "2"], "script")
    assert well.end() == 0, well.told
    assert well.printed.startswith("1 success {'total': 4, 'success': 4,")
    assert sorted(path.name for path in stage.here.glob("written_*")) == ["written_2", "written_4"]
    badly = stage.start_program([sys.executable, "script.py", "3"], "script")
    assert badly.end() == 0, badly.told
    told, summed_up = badly.printed.splitlines()
    assert told == "unfinished Job 2 failed: 1 task instance failed, 1 could not run because of that."
    assert summed_up.startswith("2 failed {'total': 6, 'success': 4, 'failed': 1, 'skipped': 0, 'upstream_failed': 1,")
    assert "ValueError: there is no third day" in summed_up
    assert (stage.left(), servers_of(home)) == ({}, [])
