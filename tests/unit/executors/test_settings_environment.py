from datetime import timedelta
from pathlib import Path

import pytest

from backfill.config import Settings, load_settings
from backfill.executors.environment import settings_environment

VALUES = {
    "core.home": "/srv/backfill",
    "core.parallelism": 7,
    "core.secret_key": "key",
    "database.url": "postgresql://u:p@h/d",
    "celery.readable_names": False,
    "task.heartbeat_interval": 0.25,
}


@pytest.mark.parametrize("settings", [Settings(), Settings().override("test", VALUES)])
def test_a_process_started_with_it_has_the_very_same_settings(settings: Settings, tmp_path: Path) -> None:
    environment = settings_environment(settings, {"PATH": "/bin"})
    assert load_settings(environment, tmp_path) == settings
    assert environment["PATH"] == "/bin"


def test_neither_the_environment_nor_a_file_of_this_process_changes_them(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "backfill.toml").write_text("[core]\nparallelism = 3\n")
    (tmp_path / "secret").write_text("another")
    environ = {"BACKFILL__DATABASE__URL_FILE": str(tmp_path / "secret"), "BACKFILL__CORE__PARALLELISM": "4"}
    settings = Settings().override("test", VALUES)
    assert load_settings(settings_environment(settings, environ), tmp_path) == settings


def test_durations_and_paths_are_written_as_the_settings_read_them() -> None:
    settings = Settings().override("test", {"task.queued_timeout": 90, "core.dags_folder": "~/dags"})
    environment = settings_environment(settings, {})
    assert environment["BACKFILL__TASK__QUEUED_TIMEOUT"] == str(timedelta(seconds=90).total_seconds())
    assert environment["BACKFILL__CORE__DAGS_FOLDER"] == str(Path("~/dags").expanduser())
