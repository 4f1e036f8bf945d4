"""Where a worker has the DAG from, and which it refuses."""

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from worker_stage import Stage
from worker_tasks import RunOne, one_task

from backfill.config import Settings
from backfill.dag.loader import find_dag
from workers.runner import Runner


def test_a_dag_that_is_not_signed_with_our_key_is_refused(run_one: RunOne, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    stage, attempt = run_one(mark.touch, job={"key": b"another key"})
    assert stage.state(attempt) == "failed"
    assert "is not signed with this worker's core.secret_key" in str(stage.row(attempt).error)
    assert not mark.exists()


def test_a_task_that_the_dag_lacks_is_an_ordinary_failure(
    runner: Runner, engine: sa.Engine, settings: Settings
) -> None:
    stage = Stage(engine, settings, one_task(print))
    attempt = stage.queue("unload")
    runner.run_bundle(stage.bundle(attempt))
    assert stage.state(attempt) == "failed"
    assert "has no task 'unload'" in str(stage.row(attempt).error)


DAG_FILE = """
from pathlib import Path
from backfill import DAG
from backfill.operators import PythonOperator

with DAG("filed", schedule="@daily") as dag:
    PythonOperator(task_id="load", python_callable=lambda: Path({mark!r}).touch())
"""


@pytest.fixture
def dag_file(settings: Settings, tmp_path: Path) -> Path:
    settings.core.dags_folder.mkdir()
    file = settings.core.dags_folder / "filed.py"
    file.write_text(DAG_FILE.format(mark=str(tmp_path / "ran")))
    return file


@pytest.mark.parametrize("named", [True, False], ids=["at the same path", "by its id"])
def test_a_dag_may_come_from_a_file_of_the_worker(
    named: bool, runner: Runner, engine: sa.Engine, settings: Settings, dag_file: Path, tmp_path: Path
) -> None:
    loaded = find_dag(str(dag_file), settings.core.dags_folder)
    source = {"file": str(dag_file) if named else "/elsewhere/filed.py", "file_hash": loaded.file_hash}
    stage = Stage(engine, settings, loaded.dag, from_file=source)
    attempt = stage.queue("load")
    runner.run_bundle(stage.bundle(attempt))
    assert stage.state(attempt) == "success"
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda file: file.write_text(file.read_text() + "\n# edited"),
            "differs from the one that the job was made with",
        ),
        (lambda file: file.unlink(), "There is no DAG 'filed'"),
    ],
    ids=["changed", "deleted"],
)
def test_a_file_that_is_not_the_same_is_an_ordinary_failure(
    change: Callable[[Path], object],
    complaint: str,
    runner: Runner,
    engine: sa.Engine,
    settings: Settings,
    dag_file: Path,
    tmp_path: Path,
) -> None:
    loaded = find_dag(str(dag_file), settings.core.dags_folder)
    stage = Stage(engine, settings, loaded.dag, from_file={"file": str(dag_file), "file_hash": loaded.file_hash})
    attempt = stage.queue("load")
    change(dag_file)
    runner.run_bundle(stage.bundle(attempt))
    assert stage.state(attempt) == "failed"
    assert complaint in str(stage.row(attempt).error)
    assert not (tmp_path / "ran").exists()
