"""`--donot-pickle`, where each machine has its DAGs at another place."""

from __future__ import annotations

from collections.abc import Callable

from click.testing import Result
from lifecycle_stage import Stage
from processes import Rows

Command = Callable[..., Result]


def test_worker_and_coordinator_find_the_dag_in_folders_of_their_own(stage: Stage, rows: Rows) -> None:
    submitted = stage.start("submit", "sales", "-s", "2024-01-01", "-x")
    assert submitted.end() == 0, submitted.told
    other = stage.here / "other"
    stage.settings.core.dags_folder.rename(other)
    stage.worker(1, core__dags_folder=other)
    coordinator = stage.start("coordinator", core__dags_folder=other)
    stage.wait_until(lambda: rows.job.state not in {"queued", "running"}, "the job has ended", timeout=60)
    assert rows.job.state == "success", coordinator.told
    stage.assert_each_started_once(1)


def test_a_file_that_changed_since_is_not_taken_for_the_one_of_the_job(
    stage: Stage, rows: Rows, command: Command
) -> None:
    submitted = command("submit", "sales", "-s", "2024-01-01", "-x")
    assert submitted.exit_code == 0, submitted.stderr
    file = stage.settings.core.dags_folder / "sales.py"
    file.write_text(file.read_text() + "\n# edited\n")
    refused = command("resume", submitted.stdout.strip())
    assert (refused.exit_code, refused.stderr) == (
        2,
        f"Error: The DAG file {file} differs from the one that the job was made with; bring it in line, or make the job anew.\n",
    )
    assert rows.job.state == "queued"
    told = command("why", submitted.stdout.strip(), "first", "2024-01-01")
    assert told.exit_code == 0
    assert "its date is not admitted" in told.stdout
