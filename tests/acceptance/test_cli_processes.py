"""Long-running commands: worker, Flower, coordinator."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pages import answer, asked

from backfill.config import Settings
from backfill.coordinator.broker import living_workers

Backfill = Callable[..., subprocess.CompletedProcess[str]]
Service = Callable[..., AbstractContextManager[Any]]
WaitUntil = Callable[..., None]


def test_a_worker_is_there_until_it_is_told_to_stop(
    service: Service, backfill: Backfill, settings: Settings, wait_until: WaitUntil
) -> None:
    with service("worker", "-c", "1", "-q", "backfill, small") as worker:
        wait_until(lambda: living_workers(settings.celery.broker_url), "the worker is there")
        [presence] = living_workers(settings.celery.broker_url)
        assert (presence.concurrency, sorted(presence.queues)) == (1, ["backfill", "small"])
        wait_until(lambda: "Ctrl-C stops it." in worker.told, "the worker has said that it listens")
        assert f"Worker {presence.hostname} listens to backfill, small with 1 process;" in worker.told
        states = {row["check"]: row["state"] for row in json.loads(backfill("doctor", "-o", "json").stdout)}
        assert states[f"worker {presence.hostname}"] == "ok"
        assert "workers" not in states
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(60) == 0
    assert living_workers(settings.celery.broker_url) == []


def test_a_worker_logs_as_json_where_that_is_asked_for(service: Service, wait_until: WaitUntil) -> None:
    with service("worker", "-c", "1", "--log-format", "json") as worker:
        wait_until(lambda: "Ctrl-C stops it." in worker.told, "the worker has said that it listens")
        lines = [line for line in worker.told.splitlines() if not line.startswith("Worker ")]
        assert lines
        assert all(json.loads(line)["level"] for line in lines)


def test_a_worker_without_a_schema_or_a_queue_is_refused(backfill: Backfill) -> None:
    ended = backfill("worker", "-q", " , ")
    assert ended.returncode == 2
    assert ended.stderr.endswith("Error: -q ' , ' names no queue; write names separated by commas.\n")


def test_flower_listens_on_loopback_and_asks_for_a_login(
    service: Service, settings: Settings, port: int, wait_until: WaitUntil
) -> None:
    with service("flower", "--port", str(port)) as flower:
        wait_until(lambda: asked(port, "/healthcheck"), "Flower answers")
        kept = settings.core.home / "flower_password"
        assert kept.stat().st_mode & 0o777 == 0o600
        assert f"Flower: http://127.0.0.1:{port} (user backfill, password: see {kept}); Ctrl-C stops it." in flower.told
        login = f"backfill:{kept.read_text()}"
        assert answer(port, "/workers")[0] == 401
        assert answer(port, "/workers", login="backfill:wrong")[0] == 401
        assert answer(port, "/workers", login=login)[0] == 200
        status, _ = answer(port, "/api/worker/shutdown/any", method="POST", login=login)
        assert status == 403  # it can only look
        assert kept.read_text() not in flower.told
        assert settings.celery.broker_url not in Path(f"/proc/{flower.process.pid}/cmdline").read_text()
        flower.process.send_signal(signal.SIGTERM)
        assert flower.process.wait(60) == 0


def test_flower_takes_the_password_of_the_settings(
    service: Service, settings: Settings, port: int, wait_until: WaitUntil
) -> None:
    with service("flower", flower__port=port, flower__user="ann", flower__password="deep") as flower:
        wait_until(lambda: asked(port, "/healthcheck"), "Flower answers")
        assert answer(port, "/workers", login="ann:deep")[0] == 200
        assert "password: see flower.password of the settings" in flower.told
        assert not (settings.core.home / "flower_password").exists()


def test_flower_on_a_port_that_another_process_holds_is_one_sentence(backfill: Backfill) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        ended = backfill("flower", "--port", str(port))
    assert ended.returncode == 2
    assert ended.stderr == (
        f"Error: Flower cannot listen on 127.0.0.1 port {port}: Address already in use; give it another with --port.\n"
    )


def test_the_coordinator_waits_for_jobs_and_serves_metrics(service: Service, port: int, wait_until: WaitUntil) -> None:
    with service("coordinator", "--metrics-port", str(port)) as coordinator:
        wait_until(lambda: "Ctrl-C stops it." in coordinator.told, "the coordinator waits for jobs")
        assert f"Metrics: http://127.0.0.1:{port}/metrics" in coordinator.told
        assert "backfill_jobs_driving 0.0" in answer(port, "/metrics")[1]
        coordinator.process.send_signal(signal.SIGTERM)
        assert coordinator.process.wait(60) == 0
