"""What the shell is offered for TARGET and JOB."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from backfill.cli.completion import complete_job, dag_ids
from backfill.cli.main import cli

DAGS = """
from backfill import DAG, dag
import backfill

raise SystemExit("it is never run")

with DAG("sales", schedule=None) as one:
    pass
two = backfill.DAG(dag_id="returns")
computed = DAG("x" + "y")

@dag(schedule=None)
def flow():
    pass

@backfill.dag("named")
def other():
    pass

@dag
def bare():
    pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dags.py").write_text(DAGS)
    (tmp_path / "broken.py").write_text("from backfill import DAG\nDAG('never'")
    return tmp_path


def completed(monkeypatch: pytest.MonkeyPatch, words: str, folder: Path) -> list[str]:
    monkeypatch.setenv("_BACKFILL_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    monkeypatch.setenv("BACKFILL__CORE__DAGS_FOLDER", str(folder))
    monkeypatch.setenv("BACKFILL__CORE__HOME", str(folder / "home"))
    return CliRunner().invoke(cli, prog_name="backfill").output.split()


def test_dags_are_found_by_what_their_files_say_without_running_them(folder: Path) -> None:
    assert sorted(dag_id for dag_id, _ in dag_ids(folder)) == ["bare", "flow", "named", "returns", "sales"]


@pytest.mark.parametrize("command", ["run", "submit", "plan", "clear", "dags show"])
def test_a_target_is_completed_from_the_dags_folder_and_from_files(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert completed(monkeypatch, f"backfill {command} sa", folder) == ["plain,sales", "file,sa"]


def test_where_there_is_no_folder_files_alone_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed(monkeypatch, "backfill run s", tmp_path / "none") == ["file,s"]


def test_no_server_is_started_to_complete_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed(monkeypatch, "backfill status ", tmp_path) == []
    assert not (tmp_path / "home").exists()


def test_a_database_that_does_not_answer_completes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKFILL__DATABASE__URL", "postgresql://me@127.0.0.1:1/none")
    assert complete_job("") == []
