"""Secrets of the settings appear in no output: not of commands that show settings, nor of errors, nor of tracebacks (-v)."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backfill.cli.main import cli
from backfill.config import Settings
from backfill.executors.environment import settings_environment

#: Each with signs that have to be quoted in a URL.
DATABASE, BROKER, KEY, FLOWER = "pw-database/1", "pw-broker/2", "pw-signing-key-3", "pw-flower-4"
SECRETS = (DATABASE, BROKER, KEY, FLOWER, "pw-database%2F1", "pw-broker%2F2")
ENVIRONMENT = {
    "BACKFILL__DATABASE__URL": "postgresql://me:pw-database%2F1@127.0.0.1:1/backfill",
    "BACKFILL__CELERY__BROKER_URL": "redis://me:pw-broker%2F2@127.0.0.1:1/0",
    "BACKFILL__CORE__SECRET_KEY": KEY,
    "BACKFILL__FLOWER__PASSWORD": FLOWER,
    "BACKFILL__DATABASE__CONNECT_TIMEOUT": "2",
}


def told(ended: Result | subprocess.CompletedProcess[str]) -> str:
    return ended.stdout + ended.stderr


def hides_secrets(text: str) -> bool:
    shown = [secret for secret in SECRETS if secret in text]
    assert not shown, f"{shown} in {text}"
    return True


@pytest.fixture
def environment(settings: Settings) -> Iterator[dict[str, str]]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield {**settings_environment(settings, {}), **ENVIRONMENT}
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.mark.parametrize("form", ["table", "json", "yaml", "plain"])
def test_config_show_masks_them(form: str, environment: dict[str, str]) -> None:
    ended = CliRunner().invoke(cli, ["config", "show", "-o", form], env=environment)
    assert ended.exit_code == 0
    assert "***" in ended.stdout
    assert hides_secrets(told(ended))


BROKEN_URLS = (
    "nonsense://me:pw-database%2F1@host/x",
    "postgresql://me:pw-database/1@host:port/x",
    "postgresql://me:pw-database%2F1@[::1/x",
    "redis://me:pw-broker/2@host:99999999/0",
    "redis://me:pw-broker%2F2@127.0.0.1:1/zero",
    "redis://:pw-broker%2F2@[/0",
    "pw-database/1",
)


@pytest.mark.parametrize(
    ("url", "value"),
    [
        *(("BACKFILL__DATABASE__URL", value) for value in BROKEN_URLS),
        ("BACKFILL__CELERY__BROKER_URL", BROKEN_URLS[0]),
        # the others start a database first
        *(pytest.param("BACKFILL__CELERY__BROKER_URL", value, marks=pytest.mark.slow) for value in BROKEN_URLS[1:]),
    ],
)
def test_a_url_that_cannot_be_used_is_told_without_them(url: str, value: str, environment: dict[str, str]) -> None:
    for command in (["-v", "doctor"], ["doctor"], ["-v", "submit", "sales", "-s", "2024-01-01"], ["config", "show"]):
        ended = CliRunner().invoke(cli, command, env={**environment, url: value})
        if value != "pw-database/1":  # what is no URL at all has no part that is known to be secret
            assert hides_secrets(told(ended))


@pytest.mark.parametrize("command", [("doctor",), ("list",), ("-v", "list"), ("-v", "db", "check")])
def test_servers_that_do_not_answer_are_told_of_without_them(
    command: tuple[str, ...], environment: dict[str, str]
) -> None:
    ended = CliRunner().invoke(
        cli, command, env={**environment, "BACKFILL__DATABASE__URL": ENVIRONMENT["BACKFILL__DATABASE__URL"]}
    )
    assert hides_secrets(told(ended))


def test_a_worker_tells_nothing_of_them_when_it_starts(
    environment: dict[str, str], settings: Settings, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    seen = tmp_path / "seen"
    with (
        seen.open("w") as file,
        subprocess.Popen(
            [sys.executable, "-m", "backfill", "-v", "worker", "-c", "1"],
            env={**os.environ, **environment, "BACKFILL__DATABASE__URL": settings.database.url},
            stdout=file,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            wait_until(lambda: seen.stat().st_size > 0 or process.poll() is not None, "the worker to say something")
            assert hides_secrets(Path(f"/proc/{process.pid}/cmdline").read_text())
        finally:
            process.kill()
    assert hides_secrets(seen.read_text())
