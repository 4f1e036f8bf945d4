"""config/flowerconfig.py, for those who run Flower as a program of its own."""

import runpy
from pathlib import Path

import pytest
from flower.options import options
from project import ROOT

from backfill.cli import flower as command


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKFILL_HOME", str(tmp_path))
    content = runpy.run_path(str(ROOT / "config" / "flowerconfig.py"))
    return {name: value for name, value in content.items() if not name.startswith("_") and not callable(value)}


def test_every_name_is_an_option_of_flower(configuration: dict[str, object]) -> None:
    assert set(configuration) <= set(options)


def test_it_listens_on_loopback_behind_a_login_and_only_looks(configuration: dict[str, object], tmp_path: Path) -> None:
    password = (tmp_path / "flower_password").read_text()
    assert configuration["address"] == "127.0.0.1"
    assert configuration["basic_auth"] == [f"backfill:{password}"]
    assert configuration["read_only"] is True


def test_it_says_what_the_command_says(configuration: dict[str, object]) -> None:
    assert configuration["purge_offline_workers"] == command.PURGE_OFFLINE_WORKERS
    assert configuration["max_tasks"] == command.MAX_TASKS
    assert configuration["tasks_columns"] == command.TASKS_COLUMNS
