"""`backfill config show`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from backfill.cli.main import cli
from backfill.cli.settings import settings_rows
from backfill.config import Settings, load_settings


def row(settings: Settings, key: str) -> dict[str, object]:
    return next(row for row in settings_rows(settings) if row["key"] == key)


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("core.secret_key", "deep secret", "***"),
        ("core.secret_key", "", ""),
        ("flower.password", "deep secret", "***"),
        ("database.url", "postgresql://me:deep@db/x", "postgresql://me:***@db/x"),
        ("database.url", "postgresql://me@db/x?password=deep", "postgresql://me@db/x?password=***"),
        ("celery.broker_url", "redis://:deep@broker/0", "redis://:***@broker/0"),
        ("celery.broker_url", "", ""),
        ("task.queued_timeout", "90", 90.0),
        ("core.dags_folder", "/dags", "/dags"),
        ("core.parallelism", "3", 3),
        ("celery.readable_names", "no", False),
    ],
)
def test_values_are_shown_without_secrets(key: str, value: str, shown: object) -> None:
    settings = Settings().override("$TEST", {key: value})
    assert row(settings, key) == {"key": key, "value": shown, "origin": "$TEST"}
    assert "deep" not in str(settings_rows(settings))


def test_the_origin_of_each_value_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "backfill.toml"
    file.write_text("[core]\nparallelism = 3\n")
    settings = load_settings({"BACKFILL_CONFIG": str(file), "BACKFILL__FLOWER__PORT": "5556"}, tmp_path)
    origins = {key: row(settings, key)["origin"] for key in ("core.parallelism", "flower.port", "flower.user")}
    assert origins == {
        "core.parallelism": str(file),
        "flower.port": "$BACKFILL__FLOWER__PORT",
        "flower.user": "default",
    }


def test_show_prints_all_of_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKFILL_HOME", str(tmp_path))
    shown = CliRunner().invoke(cli, ["config", "show", "-o", "json"])
    assert [row["key"] for row in json.loads(shown.stdout)] == [name for name, _ in Settings().items()]


def test_a_setting_that_does_not_exist_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKFILL__CORE__PARALELISM", "3")
    shown = CliRunner().invoke(cli, ["config", "show"])
    assert shown.exit_code == 2
    assert shown.stderr == (
        "Error: $BACKFILL__CORE__PARALELISM sets 'core.paralelism', which is no setting; "
        "did you mean $BACKFILL__CORE__PARALLELISM?\n"
    )
