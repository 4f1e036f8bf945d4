"""`backfill logs`: of one try, as it grows, and where it is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from lifecycle_stage import Stage
from processes import Rows

Backfill = Callable[..., object]
Command = Callable[..., Result]

#: `pull` fails in its first try; where there is a file `hold`, each try waits for that to go, in the middle of its log.
DAG_FILE = """
import time
from datetime import datetime, timedelta
from pathlib import Path

from backfill import DAG, task
from backfill.operators import EmptyOperator

with DAG("sales", schedule="@daily", start_date=datetime(2024, 1, 1)):

    @task(retries=1, retry_delay=timedelta(seconds=1))
    def pull(ti=None):
        print("begun", ti.try_number, flush=True)
        while Path({hold!r}).exists():
            time.sleep(0.02)
        if ti.try_number == 1:
            raise ValueError("not yet")
        print("done", ti.try_number)

    @task
    def each(n):
        print("value", n)

    pull() >> EmptyOperator(task_id="end")
    each.expand(n=[10, 20])
"""
DAY = ("-s", "2024-01-01")


@pytest.fixture
def ready(stage: Stage) -> Stage:
    """Put the DAG into its folder."""
    (stage.settings.core.dags_folder / "sales.py").write_text(DAG_FILE.format(hold=str(stage.here / "hold")))
    return stage


def test_each_try_has_its_log_and_the_latest_is_shown(ready: Stage, command: Command, rows: Rows) -> None:
    run = ready.start("run", "sales", *DAY, "-l")
    assert run.end() == 0, run.told
    job_id = str(rows.job.id)
    latest = command("logs", job_id, "pull", "2024-01-01")
    assert latest.exit_code == 0, latest.stderr
    assert "begun 2" in latest.stdout
    assert "done 2" in latest.stdout
    assert "begun 1" not in latest.stdout
    first = command("logs", job_id, "pull", "2024-01-01", "--try", "1").stdout
    assert "ValueError: not yet" in first
    shown = json.loads(command("logs", job_id, "pull", "2024-01-01", "-o", "json").stdout)
    assert (shown["try_number"], shown["tries"], shown["state"]) == (2, [1, 2], "success")
    assert shown["log"] == latest.stdout == Path(shown["path"]).read_text()
    followed = command("logs", job_id, "pull", "2024-01-01", "--follow")
    assert (followed.exit_code, followed.stdout) == (0, latest.stdout)
    assert "value 20" in command("logs", job_id, "each", "2024-01-01", "--map-index", "1").stdout
    refused = [
        (("pull", "2024-01-01", "--try", "3"), 2, "pull of 2024-01-01 has no try 3; it has 1, 2."),
        (("each", "2024-01-01"), 2, "each of 2024-01-01 has 2 map indexes; name one with --map-index."),
        (("end", "2024-01-01"), 5, "There is no log of end of 2024-01-01, which is success: no worker has begun it; "),
        (("push", "2024-01-01"), 2, "has no task 'push'"),
        (("pull", "2024-02-01"), 2, "has no run date 2024-02-01"),
        (("pull", "2024-01-01", "-f", "-o", "json"), 2, "--follow shows a log as it grows, which has no form json"),
    ]
    for arguments, code, told in refused:
        ended = command("logs", job_id, *arguments)
        assert (ended.exit_code, ended.stdout) == (code, "")
        assert told in ended.stderr
    elsewhere(rows, command, job_id, Path(shown["path"]))


def elsewhere(rows: Rows, command: Command, job_id: str, path: Path) -> None:
    """A log that is not on this machine is named with its host and path; one that was removed is told from it."""
    path.unlink()
    gone = command("logs", job_id, "pull", "2024-01-01")
    assert gone.exit_code == 5
    assert f"ran on this host, is not at {path}; was it removed?" in gone.stderr
    rows.write("update task_attempt set hostname = 'backfill-7@far.example'")
    far = command("logs", job_id, "pull", "2024-01-01")
    assert (far.exit_code, far.stdout) == (5, "")
    assert far.stderr == (
        "Error: The log of pull of 2024-01-01, try 2, is on host far.example, where worker backfill-7@far.example ran it: "
        f"{path}; read it there.\n"
    )


def test_a_log_is_followed_from_try_to_try_until_the_task_instance_has_ended(ready: Stage, rows: Rows) -> None:
    ready.hold()
    run = ready.start("run", "sales", *DAY, "-l")
    ready.wait_until(lambda: rows.job is not None, "there is a job")
    follow = ready.start("logs", str(rows.job.id), "pull", "2024-01-01", "--follow")
    ready.wait_until(lambda: "begun 1" in follow.printed, "what the task has printed is shown while it runs")
    assert follow.process.poll() is None
    ready.let_go()
    assert follow.end() == 0, follow.told
    assert (
        follow.printed.index("begun 1") < follow.printed.index("ValueError: not yet") < follow.printed.index("done 2")
    )
    assert run.end() == 0, run.told


def test_following_what_was_never_started_ends_with_its_job(ready: Stage, command: Command, rows: Rows) -> None:
    submitted = command("submit", "sales", *DAY)
    assert submitted.exit_code == 0, submitted.stderr
    job_id = submitted.stdout.strip()
    follow = ready.start("logs", job_id, "pull", "2024-01-01", "--follow")
    assert command("cancel", job_id).exit_code == 0
    assert follow.end() == 5
    assert follow.told == "Error: pull of 2024-01-01 has not been started: its date has no run yet.\n"
