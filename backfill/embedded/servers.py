"""The servers of a home, shared by all commands that use them."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from backfill.embedded.accounts import Account, server_account
from backfill.embedded.lock import locked
from backfill.embedded.places import Place, data_folder, make_state_folder, remove_run_folder, run_folder
from backfill.embedded.postgres import Postgres
from backfill.embedded.server import START_TIMEOUT, STOP_TIMEOUT, Server
from backfill.embedded.users import User, UserRegister
from backfill.embedded.valkey import Valkey
from backfill.exceptions import ConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the servers serve; None for one that was not asked for."""

    #: For SQLAlchemy, with psycopg2.
    database_url: str | None
    #: For Celery.
    broker_url: str | None


class Servers:
    """The embedded PostgreSQL and Valkey of one home, as one user of them sees them (interface.md, section 4).

    The first user of a home starts the servers, later ones attach, and the last stops them. Each `Servers` object is one user
    from `acquire` to `release`, the end of its process included, however that ends: users that were killed are forgotten by
    the next command, which uses their servers or stops them. A fork of the process is no user of its own.

    `durable=False` gives up safety against power failures for speed; for tests only. Not safe for use by several threads.
    """

    def __init__(self, home: Path, *, durable: bool = True) -> None:
        self._home = home.expanduser().absolute()
        self._durable = durable
        self._user: User | None = None

    def acquire(self, *, database: bool = True, broker: bool = True) -> Endpoints:
        """Return where the servers that are asked for serve, started where they do not run yet.

        A second call adds what it asks for. Raises `ConfigError` when the home, the account or the installation will not do, and
        `ServiceUnavailable` when a server does not start or another process holds its data.
        """
        with self._readable_errors():
            account = server_account(self._state / "data")
            make_state_folder(self._state, account)
            with self._exclusive():
                postgres, valkey = self._servers(account)
                self._start([server for server, asked in ((valkey, broker), (postgres, database)) if asked])
                self._enter()
        return Endpoints(postgres.url if database else None, valkey.url if broker else None)

    def release(self) -> None:
        """Use the servers no longer; the last user stops them. Without effect when they are not in use by this object."""
        user, self._user = self._user, None
        atexit.unregister(self.release)
        if user is None or user.pid != os.getpid() or not self._state.is_dir():
            return
        with self._readable_errors(), self._exclusive():
            self._register.remove(user)
            self._stop_if_unused()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    @property
    def _state(self) -> Path:
        return self._home / "embedded"

    @property
    def _register(self) -> UserRegister:
        return UserRegister(self._state / "users.json")

    def _exclusive(self) -> AbstractContextManager[None]:
        return locked(self._state / "lock", START_TIMEOUT + STOP_TIMEOUT)

    def _servers(self, account: Account) -> tuple[Postgres, Valkey]:
        place = Place(
            state=self._state,
            data=data_folder(self._state, account),
            run=run_folder(self._state, account),
        )
        return Postgres(place, account, durable=self._durable), Valkey(place, account, durable=self._durable)

    def _enter(self) -> None:
        if self._user is None or self._user.pid != os.getpid():
            self._user = User.of_this_process()
            self._register.add(self._user)
            atexit.register(self.release)

    def _start(self, servers: Sequence[Server]) -> None:
        """Start those of `servers` that do not serve, side by side."""
        try:
            for server in servers:
                if server.is_running and not server.serves():
                    logger.warning("The embedded %s runs but cannot be reached; it is started anew", server.title)
                    _stop([server])
            absent = [server for server in servers if not server.is_running]
            _say(absent)
            for server in absent:
                server.spawn()
            for server in absent:
                server.wait_until_ready()
        except BaseException:
            self._stop_if_unused()
            raise

    def _stop_if_unused(self) -> None:
        if not self._register.living():
            _stop(self._servers(server_account(self._state / "data")))
            remove_run_folder(self._state)

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        """Turn what the file system refuses into one sentence."""
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"The embedded servers cannot use {error.filename or self._state}: {error.strerror or error};"
                " make it writable, with room to spare, or set core.home to another folder."
            ) from error


def _say(starting: Sequence[Server]) -> None:
    for server in starting:
        who = f" as user {server.account.name}, since it must not run as root" if server.account.is_other else ""
        logger.info("Starting the embedded %s%s", server.title, who)


def _stop(servers: Sequence[Server]) -> None:
    running = [server for server in servers if server.is_running]
    for server in running:
        server.ask_to_stop()
    for server in running:
        server.wait_until_stopped()
