"""A worker process of the local executor: `python -m workers.local`.

Down its standard input come bundles, a line of JSON each; up its standard output go the events of their attempts, a line each,
and an empty line when a bundle is done with. The end of the input is the order to stop: what runs is handed back. After a SIGTERM,
which ends the attempt that runs, the process leaves too.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import BinaryIO

from backfill.config import load_settings
from backfill.exceptions import BackfillError, MessageError, ServiceUnavailable
from backfill.messages import Bundle, ExecutorEvent
from backfill.metrics import configure_logging
from backfill.store.database import create_engine
from workers.runner import Runner

logger = logging.getLogger(__name__)

#: Seconds.
_MOMENT = 0.05


class Wire:
    """The pipes to the executor, kept out of the way of tasks, for which standard input is empty and output goes to stderr."""

    def __init__(self) -> None:
        self._orders: BinaryIO = os.fdopen(os.dup(0), "rb")
        self._events: BinaryIO = os.fdopen(os.dup(1), "wb")
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123  # a device, not a file
            os.dup2(nothing.fileno(), 0)
        os.dup2(2, 1)
        self._arrived: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._leaving = False
        threading.Thread(target=self._read, name="orders", daemon=True).start()

    def ended(self) -> bool:
        """Return whether the executor has closed its end: the order to stop."""
        return self._ended.is_set()

    def next_line(self) -> bytes | None:
        """Wait for an order; None: leave."""
        return None if self._leaving else self._arrived.get()

    def leave(self) -> None:
        """Let `next_line` return None from now on, also if it waits. Safe in a signal handler."""
        self._leaving = True
        self._arrived.put(None)

    def send(self, _stream: str, events: Sequence[ExecutorEvent]) -> None:
        """Tell the executor; one that is gone hears nothing more."""
        self._write(b"".join(event.encode().encode() + b"\n" for event in events))

    def done(self) -> None:
        """Say that the bundle is done with."""
        self._write(b"\n")

    def _write(self, line: bytes) -> None:
        try:
            with self._writing:
                self._events.write(line)
                self._events.flush()
        except BrokenPipeError:
            self._ended.set()

    def _read(self) -> None:
        for line in self._orders:
            self._arrived.put(line)
        time.sleep(
            _MOMENT
        )  # an executor that died closes its end a moment before it counts as gone, which is another matter
        self._ended.set()
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Serve the executor to its end; return the exit code."""
    faulthandler.enable(file=2)  # a crash in C code is told in the log of the task that it happened to
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the coordinator
    wire = Wire()
    signal.signal(signal.SIGTERM, lambda _number, _frame: wire.leave())
    settings = load_settings()
    configure_logging(settings.logging)
    engine = create_engine(
        settings.database.url,
        application_name="backfill-local-worker",
        connect_timeout=settings.database.connect_timeout,
        pool_size=1,  # the second, for the heartbeat while the task uses the first, is opened when needed
        pre_ping=False,  # every transaction is repeated on a lost connection: no need to ask before
    )
    runner = Runner(engine, settings, wire.send, hostname=socket.gethostname(), stopping=wire.ended)
    while (line := wire.next_line()) is not None:
        if not _serve(line, runner, wire):
            break
    runner.end()
    engine.dispose()
    return os.EX_OK


def _serve(line: bytes, runner: Runner, wire: Wire) -> bool:
    """Run one bundle; return whether the process goes on."""
    try:
        bundle = Bundle.decode(json.loads(line))
        runner.run_bundle(bundle)
    except (MessageError, ValueError) as error:
        logger.warning("An order is broken and is dropped: %s", error)
    except ServiceUnavailable as error:
        logger.error("Attempts were left as they are: %s", error)  # noqa: TRY400  # its text says it all
        return False
    if runner.interruption.reason is not None:
        return False  # told to stop: the executor starts another process when it needs one
    wire.done()
    return True


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BackfillError as refused:
        sys.stderr.write(f"{refused}\n")
        sys.exit(refused.exit_code)
