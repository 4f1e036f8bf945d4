"""Gates before servers: ports of loopback that can be shut, or lose what is on its way."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self


class Gate:
    """A port of loopback that leads to a server's socket, for one client that is to be cut off."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._is_open = threading.Event()
        self._is_open.set()
        self._refuses = False
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, name="gate", daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def fall_silent(self) -> None:
        """Let nothing pass, and close nothing; what is on its way arrives when the gate opens, as after a broken cable."""
        self._is_open.clear()

    def cut(self) -> None:
        """Break all connections and refuse new ones."""
        self._refuses = True
        self._close_all()

    def open(self) -> None:
        self._refuses = False
        self._is_open.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._refuses = True
        self._is_open.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._close_all()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        self._sockets += [client, server]
        try:
            if self._refuses:
                raise ConnectionRefusedError
            server.connect(str(self._target))
        except OSError:
            _close(client, server)
            return
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._is_open.wait()
                if not self._lets_through(data, source, sink):
                    break
                sink.sendall(data)
        self._is_open.wait()
        _close(source, sink)

    def _lets_through(self, data: bytes, source: socket.socket, sink: socket.socket) -> bool:
        """Return whether `data` goes on its way; if not, the connection is cut."""
        return True

    def _close_all(self) -> None:
        sockets, self._sockets = self._sockets, []
        _close(*sockets)


class CommitGate(Gate):
    """A gate to PostgreSQL that can cut a connection on which a COMMIT was just sent, or a change that commits itself."""

    def __init__(self, target: Path) -> None:
        super().__init__(target)
        self._arrives: bool | None = None
        self._meanwhile: Callable[[], object] = lambda: None
        #: Servers whose next answer nobody hears.
        self._unheard: list[socket.socket] = []
        #: Clients that are in the midst of a transaction.
        self._in_transaction: set[socket.socket] = set()

    def lose_next_commit(self, *, arrives: bool, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Cut the connection of the next COMMIT before that `arrives`, or before its answer does; call `meanwhile` just after."""
        self._meanwhile = meanwhile
        self._arrives = arrives

    def _lets_through(self, data: bytes, source: socket.socket, sink: socket.socket) -> bool:
        if source in self._unheard:
            self._unheard.remove(source)
            self._meanwhile()
            return False
        arrives, commits = self._arrives, self._commits(data, source)
        if arrives is None or not commits:
            return True
        self._arrives = None
        if arrives:
            self._unheard.append(sink)
            return True
        _close(sink)
        self._meanwhile()
        return False

    def _commits(self, data: bytes, source: socket.socket) -> bool:
        """Return whether `data` is sent to commit; what is read without a transaction is not."""
        if b"COMMIT\0" in data:
            self._in_transaction.discard(source)
            return True
        if b"ROLLBACK\0" in data:
            self._in_transaction.discard(source)
        elif data.startswith(b"Q") and data[5:].startswith(b"BEGIN"):
            self._in_transaction.add(source)
        changes = b"update task_instance" in data or b"execute backfill_" in data
        return data.startswith(b"Q") and changes and source not in self._in_transaction


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
