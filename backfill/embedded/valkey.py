"""Valkey, the broker of a home."""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from backfill.embedded import programs
from backfill.embedded.server import Server


class Valkey(Server):
    """The broker. It never evicts (messages are no cache) and keeps an append-only file, so messages survive a restart."""

    title: ClassVar[str] = "Valkey"
    name: ClassVar[str] = "valkey"
    program: ClassVar[str] = "valkey-server"
    stop_signals: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGTERM,)

    @property
    def url(self) -> str:
        """Where it serves, as Celery takes it. Database 0, which Flower assumes."""
        return f"redis+socket://{self.socket_path}"

    @property
    def socket_path(self) -> Path:
        """The unix socket that it listens on."""
        return self.place.run / "valkey.sock"

    @property
    def pid_file(self) -> Path:
        """The file into which it writes its pid."""
        return self.data / "valkey.pid"

    def prepare(self) -> None:
        """Make the data folder where it does not exist."""
        if not self.data.is_dir():
            self.data.mkdir(mode=0o700)
            self.account.give(self.data)

    def command(self) -> Sequence[str]:
        """Return the command line that runs it in the foreground."""
        options = {
            "dir": self.data,
            "pidfile": self.pid_file,
            "port": 0,
            "unixsocket": self.socket_path,
            "unixsocketperm": 700,
            "appendonly": "yes",
            "appendfsync": "everysec" if self.durable else "no",
            "save": "",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        program = programs.valkey_program(self.account)
        return [str(program), *(text for key, value in options.items() for text in (f"--{key}", str(value)))]

    def is_ready(self) -> bool:
        """Whether it answers; while it reads its append-only file it does not yet."""
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(5)
                client.connect(str(self.socket_path))
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith(b"+PONG")
        except OSError:
            return False
