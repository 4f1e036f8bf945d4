"""Flower shows no secret on any page, and without a login nothing but whether it is there and its metrics."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from pages import answer, asked
from redis import Redis
from redis.exceptions import RedisError

from backfill.config import Settings
from backfill.embedded import programs
from backfill.embedded.accounts import server_account

Backfill = Callable[..., subprocess.CompletedProcess[str]]
Service = Callable[..., AbstractContextManager[Any]]
WaitUntil = Callable[..., None]

#: Those of the first line have signs that have to be quoted in a URL.
BROKER, DATABASE = "pw-broker/1", "pw-database/2"
KEY, LOGIN, CONF = "pw-signing-key-3", "pw-flower-4", "pw-conf-5"
SECRETS = [form for secret in (BROKER, DATABASE, KEY, LOGIN, CONF) for form in {secret, quote(secret, safe="")}]
PAGES = [
    "/",
    "/workers",
    "/tasks",
    "/broker",
    "/api/workers",
    "/api/workers?refresh=1",
    "/api/tasks",
    "/api/queues/length",
]
PAGES += ["/api/task/types", "/metrics", "/healthcheck"]
#: What Flower's own documentation leaves open.
OPEN = {"/metrics", "/healthcheck"}

DAG_FILE = f"""
from datetime import datetime
from backfill import DAG, task

with DAG("sales", schedule="@daily", start_date=datetime(2024, 1, 1)):

    @task
    def load(day):
        if day == "2024-01-02":
            raise ValueError("refused: {" ".join(SECRETS)}")

    load("{{{{ ds }}}}")
"""


def answers(port: int) -> bool:
    try:
        with Redis(port=port, password=BROKER) as client:
            return bool(client.ping())
    except RedisError:
        return False


@pytest.fixture
def guarded_broker(tmp_path: Path, wait_until: WaitUntil) -> Iterator[str]:
    """Run a Valkey that asks for a password, and give its URL."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = int(taken.getsockname()[1])
    given = ["--port", str(port), "--bind", "127.0.0.1", "--requirepass", BROKER, "--save", "", "--dir", str(tmp_path)]
    program = programs.valkey_program(server_account(tmp_path))
    with subprocess.Popen([str(program), *given, "--loglevel", "warning"], stdout=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: answers(port), "the broker answers")
            yield f"redis://:{quote(BROKER, safe='')}@127.0.0.1:{port}/0"
        finally:
            server.kill()


@pytest.fixture
def guarded(settings: Settings, guarded_broker: str) -> dict[str, Any]:
    """Return settings that hold a secret wherever there may be one; the database lets any password in."""
    settings.core.dags_folder.mkdir()
    (settings.core.dags_folder / "sales.py").write_text(DAG_FILE)
    database = sa.make_url(settings.database.url)
    database = database.set(username=database.username or "backfill", password=DATABASE)
    return {
        "celery__broker_url": guarded_broker,
        "database__url": database.render_as_string(hide_password=False),
        "core__secret_key": KEY,
        "flower__user": "ann",
        "flower__password": LOGIN,
    }


def failures(port: int) -> list[dict[str, Any]]:
    """Return the failed tasks that Flower knows; there may be other task instances in their messages."""
    tasks = json.loads(answer(port, "/api/tasks", login=f"ann:{LOGIN}")[1]).values()
    return [task for task in tasks if task["state"] == "FAILURE"]


def test_flower_shows_no_secret_and_nothing_without_a_login(
    service: Service, backfill: Backfill, guarded: dict[str, Any], port: int, wait_until: WaitUntil
) -> None:
    login = f"ann:{LOGIN}"
    with (
        service("flower", flower__port=port, **guarded) as flower,
        service("worker", "-c", "1", **guarded) as worker,
    ):
        wait_until(lambda: asked(port, "/healthcheck"), "Flower answers")
        wait_until(lambda: "Events of group {task} enabled" in worker.told, "Flower has asked for the worker's events")
        conf = json.dumps({"password": CONF})
        ended = backfill("run", "sales", "-s", "2024-01-01", "-e", "2024-01-02", "--conf", conf, **guarded)
        assert ended.returncode == 1, ended.stderr
        wait_until(lambda: failures(port), "Flower has heard of the task that failed")
        failed = failures(port)
        assert "refused: ***" in failed[0]["exception"]
        status = backfill("status", "1", "-o", "json", **guarded)
        told = {
            "flower": flower.told,
            "worker": worker.told,
            "run": ended.stdout + ended.stderr,
            "status": status.stdout,
        }
        for page in [*PAGES, f"/task/{failed[0]['uuid']}", f"/api/task/info/{failed[0]['uuid']}"]:
            assert answer(port, page)[0] == (200 if page in OPEN else 401), page
            assert answer(port, page, login="ann:wrong")[0] == (200 if page in OPEN else 401), page
            code, told[page] = answer(port, page, login=login)
            assert code == 200, page
        shown = [(where, secret) for where, text in told.items() for secret in SECRETS if secret in text]
        assert shown == []
