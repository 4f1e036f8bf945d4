"""One server program: started apart from the terminal, watched through a lock that it holds, stopped by signals."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, ClassVar

from backfill.embedded.accounts import Account
from backfill.embedded.lock import is_locked, try_lock
from backfill.embedded.places import Place
from backfill.embedded.processes import find_process, may_work_in, processes_in, wait_until
from backfill.exceptions import ServiceUnavailable

logger = logging.getLogger(__name__)

#: Seconds that a server may take until it answers; a database that repairs itself after a crash needs some.
START_TIMEOUT = 120.0
#: Seconds that a server may take to stop before it is told so more roughly.
STOP_TIMEOUT = 30.0
#: Seconds that the last processes of a killed server may live on before they are ended, too.
_REMNANT_TIMEOUT = 2.0
#: What a line of a server's output has that tells why it gave up.
_FAULT = re.compile(r"FATAL|PANIC|[Ee]rror|ERROR|[Cc]annot|could not|Can't|[Ff]ailed|denied|not found")
#: Bytes after which a server's log is put aside at the next start; one older log is kept.
_LOG_LIMIT = 10_000_000


class Server(ABC):
    """One server of a home. Only the holder of the home's lock may call its methods.

    A started program inherits a locked file (`_lock`), and so do the processes that it makes: the server lives exactly
    as long as that file is locked.
    """

    #: Name for people, in sentences.
    title: ClassVar[str]
    #: Name of its files and folder.
    name: ClassVar[str]
    #: Name of the program that runs it.
    program: ClassVar[str]
    #: Signals that stop it, the gentlest first.
    stop_signals: ClassVar[tuple[signal.Signals, ...]]

    def __init__(self, place: Place, account: Account, *, durable: bool) -> None:
        self.place = place
        self.account = account
        self.durable = durable
        self.data = place.data / self.name
        self.log = place.state / f"{self.name}.log"
        self._lock = place.state / f"{self.name}.lock"
        self._log_start = 0

    @property
    @abstractmethod
    def socket_path(self) -> Path:
        """The unix socket that it listens on."""

    @property
    @abstractmethod
    def pid_file(self) -> Path:
        """The file into which it writes its pid."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the data folder where it does not exist, and check it where it does."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Return the command line that runs it in the foreground."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it serves its clients."""

    @property
    def is_running(self) -> bool:
        """Whether any process of the server lives."""
        return is_locked(self._lock)

    def spawn(self) -> None:
        """Start the program and return at once; `wait_until_ready` tells how that went."""
        self._clear_away_remnants()
        self.prepare()
        self._refuse_if_held()
        self._unlink_leftovers()
        self._run_detached()

    def wait_until_ready(self) -> None:
        """Return as soon as the server serves; `ServiceUnavailable` with the last line of its log when it gave up."""
        wait_until(lambda: self.is_ready() or not self.is_running, START_TIMEOUT)
        if self.is_ready():
            return
        if self.is_running:
            raise ServiceUnavailable(
                f"The embedded {self.title} has not become ready within {START_TIMEOUT:.0f} seconds; its log is {self.log}."
            )
        raise ServiceUnavailable(
            f"The embedded {self.title} did not start: {self._last_words()}; its log is {self.log}."
        )

    def serves(self) -> bool:
        """Whether a running server serves, or is about to: False for one that nobody can reach any more."""
        wait_until(lambda: self.is_ready() or self._is_out_of_reach(), START_TIMEOUT)
        return self.is_ready()

    def ask_to_stop(self) -> None:
        """Send the gentlest of the signals that stop it."""
        wait_until(lambda: self.pid_file.exists() or not self.is_running, STOP_TIMEOUT)  # it may be starting just now
        self._signal(self.stop_signals[0])

    def wait_until_stopped(self) -> None:
        """Return when no process of the server lives; one that does not obey is told so more roughly, and killed at last."""
        for following in (*self.stop_signals[1:], signal.SIGKILL):
            if wait_until(lambda: self.pid() is None, STOP_TIMEOUT):
                break
            logger.warning("The embedded %s does not stop; it is sent %s", self.title, following.name)
            self._signal(following)
        self._clear_away_remnants()

    def pid(self) -> int | None:
        """Return the pid of its main process; None when that does not live."""
        try:
            pid = int(self.pid_file.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None
        process = find_process(pid)
        return pid if process is not None and process.program == self.program else None

    def accepts_connections(self) -> bool:
        """Whether somebody listens on the socket."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            return client.connect_ex(str(self.socket_path)) == 0

    def _is_out_of_reach(self) -> bool:
        is_cut_off = self.pid_file.exists() and (self.pid() is None or not self.socket_path.exists())
        return is_cut_off or not self.is_running

    def _signal(self, what: signal.Signals) -> None:
        pid = self.pid()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, what)

    def _clear_away_remnants(self) -> None:
        """End what is left of a server whose main process was killed: it would keep the data folder occupied."""
        if wait_until(lambda: not self.is_running, _REMNANT_TIMEOUT):
            return
        for pid in processes_in(self.data):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not wait_until(lambda: not self.is_running, STOP_TIMEOUT):
            raise ServiceUnavailable(
                f"The data folder {self.data} of the embedded {self.title} is held by processes of another machine, container"
                " or user; end them, or choose another core.home."
            )

    def _refuse_if_held(self) -> None:
        """Refuse a data folder in which a server works that does not hold our lock: somebody started it by hand."""
        named = self.pid()
        holder = (
            named if named is not None and may_work_in(named, self.data) else next(iter(processes_in(self.data)), None)
        )
        if holder is not None:
            raise ServiceUnavailable(
                f"The data folder {self.data} of the embedded {self.title} is held by process {holder}, which no command"
                " of backfill started; stop it, or choose another core.home."
            )

    def _unlink_leftovers(self) -> None:
        """Remove what a killed server left behind: now that none lives, its pids may be other processes'."""
        for path in (self.pid_file, self.socket_path, self.socket_path.with_name(f"{self.socket_path.name}.lock")):
            path.unlink(missing_ok=True)

    def _run_detached(self) -> None:
        descriptor = try_lock(self._lock)
        if descriptor is None:
            raise ServiceUnavailable(
                f"The embedded {self.title} was started by another command at the same moment; try again."
            )
        try:
            with self._open_log() as log:
                # the shell goes at once, so the server is nobody's child and needs nobody to wait for it
                run_program(
                    self.account,
                    ["/bin/sh", "-c", '"$@" &', "sh", *self.command()],
                    output=log,
                    pass_fds=(descriptor,),
                )
        finally:
            os.close(descriptor)

    def _open_log(self) -> BinaryIO:
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        log = self.log.open("ab")
        self.log.chmod(0o600)  # statements that fail are quoted in it
        self._log_start = log.tell()
        return log

    def _last_words(self) -> str:
        """Return why the last start failed, from what was logged since then."""
        return fault_in(self.log.read_bytes()[self._log_start :].decode(errors="replace"))


def run_program(
    account: Account,
    command: Sequence[str],
    *,
    text: str = "",
    output: BinaryIO | int = subprocess.PIPE,
    pass_fds: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """Run `command` as `account` to its end, apart from the terminal, with `text` as its input.

    It gets nothing of the caller's environment, whose PGDATA and the like would speak to it. Raises `ServiceUnavailable` when
    the program cannot be run.
    """
    try:
        return subprocess.run(
            command,
            input=text,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
            umask=0o077,
            start_new_session=True,
            pass_fds=pass_fds,
            check=False,
            **account.popen_options(),
        )
    except OSError as error:
        raise ServiceUnavailable(
            f"The program {command[0]} cannot be run as user {account.name}: {error.strerror}."
        ) from error


def fault_in(output: str) -> str:
    """Return the line of a program's `output` that tells why it gave up, without stamps before it and full stop after it."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if _FAULT.search(line)] or lines or ["it said nothing"]
    return re.sub(r"^.*?(?:FATAL|PANIC|ERROR|error):\s+", "", telling[-1]).rstrip(".")
