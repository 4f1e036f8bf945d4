"""What happens when a Celery worker, and when one of its children, starts and ends."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import pkgutil
import socket
import sys
from dataclasses import dataclass
from typing import Any, NoReturn

from billiard.exceptions import WorkerLostError
from celery import Celery, signals
from celery.concurrency.prefork import TaskPool
from sqlalchemy import Engine

from backfill.config import Settings, load_settings
from backfill.exceptions import BackfillError, MessageError, UsageError
from backfill.messages import TASK_NAME, Bundle
from backfill.metrics import configure_logging
from backfill.store.database import create_engine
from workers.control import on_order
from workers.events import EventPublisher
from workers.heartbeat import patience
from workers.lost import LostAttempts
from workers.marks import Marks
from workers.presence import Presence, PresenceKeeper
from workers.queues import queues_named
from workers.runner import Runner
from workers.shutdown import Shutdown, StopFlag
from workers.warm_up import warm_up_aside

logger = logging.getLogger(__name__)

#: How often a dead child is looked for, in seconds. Celery is told of a death when the process has closed its files, which may be
#: a moment before it can be seen to have ended, and looks again after five seconds only.
_LOOK_EVERY = 1.0
#: Each has a line for every message, which says less than ours.
_TALKATIVE = ("celery.worker.strategy", "celery.app.trace")


@dataclass(slots=True)
class _Child:
    """What a child process has of its own."""

    engine: Engine
    events: EventPublisher
    runner: Runner


class Lifecycle:
    """The handlers of Celery's signals. One object for each app; children get theirs, with its settings, by fork."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._settings: Settings | None = None
        self._main_pid = 0
        self._servers: Any = None
        self._stopping = StopFlag()
        self._marks = Marks()
        self._looking: Any = None
        self._shutdown: Shutdown | None = None
        self._presence: PresenceKeeper | None = None
        self._lost: LostAttempts | None = None
        self._child: _Child | None = None

    def connect(self) -> None:
        """Take Celery's signals."""
        for signal, handler in (
            (signals.celeryd_init, self._on_worker_init),
            (signals.setup_logging, self._on_logging),
            (signals.celeryd_after_setup, self._on_worker_setup),
            (signals.worker_ready, self._on_worker_ready),
            (signals.worker_shutdown, self._on_worker_shutdown),
            (signals.task_failure, self._on_task_failure),
            (signals.worker_process_init, self._on_child_start),
            (signals.worker_process_shutdown, self._on_child_end),
        ):
            signal.connect(handler, weak=False)

    @property
    def settings(self) -> Settings:
        """The worker's settings, with the URLs of embedded servers where none are configured."""
        if self._settings is None:
            raise RuntimeError("no worker was started in this process")
        return self._settings

    @property
    def runner(self) -> Runner:
        """The runner of this child process."""
        if self._child is None:
            raise RuntimeError("this process is no child of a worker")
        return self._child.runner

    def leave_if_orphaned(self) -> None:
        """End this child at once if its parent is gone: nothing else would, for children hold each other's pipes open."""
        if os.getppid() != self._main_pid:
            os._exit(os.EX_UNAVAILABLE)

    # -- main process ---------------------------------------------------------------------------------------------------

    def _on_worker_init(self, instance: Any, conf: Any, options: dict[str, Any], **_: Any) -> None:
        """Read the settings, attach to embedded servers, and complete Celery's configuration."""
        try:
            settings = self._attached(load_settings())
            patience(interval=settings.task.heartbeat_interval, timeout=settings.task.heartbeat_timeout)
        except BackfillError as error:
            refuse(error)
        self._settings, self._main_pid = settings, os.getpid()
        conf.broker_url = settings.celery.broker_url
        queues = options.get("queues")
        if queues:  # any name may be listened to: tasks name their queues freely
            names = queues.split(",") if isinstance(queues, str) else queues
            conf.task_queues = queues_named(name.strip() for name in names)
        _ = self._app.backend  # none, but to find that out Celery reads all packages; children get it by fork
        if instance.hostname == f"celery@{socket.gethostname()}":  # Celery's default: two workers could not run here
            instance.hostname = f"backfill-{os.getpid()}@{socket.gethostname()}"

    def _attached(self, settings: Settings) -> Settings:
        """Return `settings` with the URLs of embedded servers, which run from now on, in place of empty ones."""
        database, broker = not settings.database.url, not settings.celery.broker_url
        if not (database or broker):
            return settings
        # looked up by name: a plain `celery -A workers worker` has no composition root above it that could hand them over
        self._servers = pkgutil.resolve_name("backfill.embedded:Servers")(settings.core.home)
        endpoints = self._servers.acquire(database=database, broker=broker)
        urls = {"database.url": endpoints.database_url, "celery.broker_url": endpoints.broker_url}
        return settings.override("the embedded servers", {name: url for name, url in urls.items() if url})

    def _on_logging(self, loglevel: int | None = None, **_: Any) -> None:
        """Log as the settings say; Celery sets up nothing of its own because this is connected."""
        root = logging.getLogger()
        if not root.handlers:  # else the command that started the worker has done it
            configure_logging(self.settings.logging)
            if loglevel is not None and loglevel < root.level:
                root.setLevel(loglevel)
        if root.level >= logging.INFO:
            for name in _TALKATIVE:
                logging.getLogger(name).setLevel(max(root.level, logging.WARNING))

    def _on_worker_setup(self, instance: Any, **_: Any) -> None:
        if not issubclass(instance.pool_cls, TaskPool):
            refuse(UsageError("Tasks need processes that can be stopped; start the worker with -P prefork."))

    def _on_worker_ready(self, sender: Any, **_: Any) -> None:
        """Say that the worker is there; Celery calls this again when it has reconnected, which may have ended its timers."""
        if self._looking is not None:
            self._looking.cancel()
        self._looking = sender.timer.call_repeatedly(_LOOK_EVERY, sender.pool.maintain_pool)
        if self._presence is not None:
            return
        hostname, settings = sender.hostname, self.settings
        self._shutdown = Shutdown(self._stopping, settings.worker.soft_shutdown_timeout)
        self._shutdown.take_over(hostname)
        self._lost = LostAttempts(
            settings.database.url, settings.celery.broker_url, hostname=hostname, marks=self._marks
        )
        presence = Presence(
            hostname=hostname,
            concurrency=sender.pool.num_processes,
            queues=list(self._app.amqp.queues.consume_from),
        )
        self._presence = PresenceKeeper(settings.celery.broker_url, presence, each_time=self._lost.flush)
        self._presence.start()

    def _on_worker_shutdown(self, **_: Any) -> None:
        presence, self._presence = self._presence, None
        if presence is not None:
            presence.end()

    def _on_task_failure(self, sender: Any, exception: BaseException, args: Any = (), **_: Any) -> None:
        """Report the attempts of a child that died; the failures of tasks themselves are committed by the children."""
        if sender.name != TASK_NAME or not isinstance(exception, WorkerLostError) or self._lost is None:
            return
        try:
            bundle = Bundle.decode(args[0] if args else None)
        except MessageError:
            return
        self._lost.report(bundle, str(exception))

    # -- children -------------------------------------------------------------------------------------------------------

    def _on_child_start(self, sender: str, **_: Any) -> None:
        """Give the child connections of its own; none of the parent's may be used after the fork."""
        self.leave_if_orphaned()  # the parent died before the kernel was asked to tell
        gc.freeze()  # what came from the parent stays as it is: to look through it for garbage takes time, and memory of one's own
        faulthandler.enable(file=2)  # a crash in C code is told in the log of the task that it happened to
        settings = self.settings
        engine = create_engine(
            settings.database.url,
            application_name=f"backfill-worker {sender}",
            connect_timeout=settings.database.connect_timeout,
            pool_size=1,  # the second, for the heartbeat while the task uses the first, is opened when needed
            pre_ping=False,  # every transaction is repeated on a lost connection: no need to ask before
        )
        events = EventPublisher(settings.celery.broker_url)
        runner = Runner(
            engine,
            settings,
            events.publish,
            hostname=sender,
            stopping=self._stopping.is_set,
            tick=events.flush,
            mark=self._marks.mark,
        )
        on_order(runner.heartbeat.hurry)
        warm_up_aside(engine, events)
        self._child = _Child(engine, events, runner)

    def _on_child_end(self, **_: Any) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.runner.end()
            child.events.flush()
            child.events.close()
            child.engine.dispose()


def refuse(error: BackfillError) -> NoReturn:
    """End the process with the one sentence of `error`: Celery would show a traceback."""
    sys.stderr.write(f"{error}\n")
    raise SystemExit(error.exit_code)
