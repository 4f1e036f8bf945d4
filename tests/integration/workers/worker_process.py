"""A Celery worker as users start it: a process of its own."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from celery import Celery

from backfill.config import Settings
from backfill.executors import broker
from backfill.executors.environment import settings_environment
from backfill.messages import TASK_NAME, Bundle, ExecutorEvent, decode_events

ROOT = Path(__file__).resolve().parents[3]


class WorkerProcess:
    """`celery -A workers worker`, in a process group of its own, whose output goes to a file."""

    def __init__(
        self,
        settings: Settings,
        log: Path,
        arguments: Sequence[str] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.log = log
        self.client = broker.connect(settings.celery.broker_url, name="test")
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "workers", "worker", "-l", "INFO", *arguments],
                cwd=ROOT,
                env=settings_environment(settings, os.environ) | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        sys.stdout.write(self.log.read_text(errors="replace"))  # shown beside a test that failed

    @property
    def presence(self) -> dict[str, Any] | None:
        """What the worker says of itself, once it is ready; with its `key`."""
        keys: Any = self.client.keys("backfill:worker:*")
        for key in keys:
            text: Any = self.client.get(key)
            if text is not None:
                return {**json.loads(text), "key": key.decode()}
        return None

    def children(self) -> list[int]:
        """Return the pids of its child processes."""
        file = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in file.read_text().split()]

    def send(self, *bundles: Bundle) -> None:
        """Put bundles into the worker's queue."""
        with Celery("test", broker=self.settings.celery.broker_url, set_as_current=False) as app:
            for bundle in bundles:
                self.send_body(app, bundle.encode(), bundle.attempts[0].attempt_id)

    def send_body(self, app: Celery, body: Any, task_id: str | None = None) -> None:
        """Put any body into the worker's queue."""
        app.send_task(TASK_NAME, (body,), task_id=task_id or str(uuid.uuid4()), queue="backfill")

    def events(self, stream: str) -> list[ExecutorEvent]:
        """Return all events of a stream."""
        entries: Any = self.client.xrange(stream)
        return [event for _, fields in entries for text in fields.values() for event in decode_events(text)]

    def ended(self) -> bool:
        """Whether the process is gone."""
        return self.process.poll() is not None


def is_gone(pid: int) -> bool:
    """Whether no process has that pid, or only a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


StartWorker = Callable[..., WorkerProcess]
