"""PostgreSQL, the database of a home."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from backfill.embedded import programs
from backfill.embedded.server import Server, fault_in, run_program
from backfill.exceptions import ConfigError, ServiceUnavailable

#: The role that everything connects as: it owns its databases and may create others, but is no superuser.
ROLE = "backfill"
DATABASE = "backfill"
_SUPERUSER = "postgres"
_PORT = 5432  # it names the socket; nothing listens on the network

#: Run once in the single-user mode of a fresh data folder.
_FIRST_STATEMENTS = (
    f"CREATE ROLE {ROLE} LOGIN CREATEDB",
    f"CREATE DATABASE {DATABASE} OWNER {ROLE}",
)

#: Given on the command line of each start, so that a newer version of the program brings its own.
_SETTINGS = {
    "listen_addresses": "",
    "port": str(_PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "dynamic_shared_memory_type": "mmap",  # in the data folder: /dev/shm is small in containers, and a kill litters it
    "fsync": "on",
    "wal_level": "minimal",  # nobody replicates from an embedded server
    "max_wal_senders": "0",
    "jit": "off",  # statements are short; compiling one takes longer than running it
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %q%d ",
    "logging_collector": "off",
}

#: For tests: a power failure may destroy the data, the end of a process may not.
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "256MB"}


class Postgres(Server):
    """The database. It admits the operating-system user that starts it (and root) by `peer`, and nobody else."""

    title: ClassVar[str] = "PostgreSQL"
    name: ClassVar[str] = "postgres"
    program: ClassVar[str] = "postgres"
    stop_signals: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGINT, signal.SIGQUIT)  # fast, then immediate

    @property
    def url(self) -> str:
        """Where its database is, as SQLAlchemy takes it."""
        return f"postgresql+psycopg2://{ROLE}@/{DATABASE}?host={self.place.run}"

    @property
    def socket_path(self) -> Path:
        """The unix socket that it listens on."""
        return self.place.run / f".s.PGSQL.{_PORT}"

    @property
    def pid_file(self) -> Path:
        """The file into which it writes its pid, and in its eighth line how far it is."""
        return self.data / "postmaster.pid"

    def prepare(self) -> None:
        """Make the database cluster where it does not exist; refuse that of another major version."""
        if self.data.is_dir():
            self._check_version()
        else:
            self._create_cluster()
        self._write_admission()

    def command(self) -> Sequence[str]:
        """Return the command line that runs it in the foreground."""
        settings = {
            **_SETTINGS,
            **({} if self.durable else _NOT_DURABLE),
            "unix_socket_directories": str(self.place.run),
            "hba_file": str(self._admission / "pg_hba.conf"),
            "ident_file": str(self._admission / "pg_ident.conf"),
        }
        options = [text for key, value in settings.items() for text in ("-c", f"{key}={value}")]
        return [str(programs.postgres_folder(self.account) / "postgres"), "-D", str(self.data), *options]

    def is_ready(self) -> bool:
        """Whether it has started up, and recovered where it had to, and takes connections."""
        return self._status() == "ready" and self.pid() is not None and self.accepts_connections()

    def _status(self) -> str:
        try:
            lines = self.pid_file.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return lines[7].strip() if len(lines) > 7 else ""  # noqa: PLR2004  # the eighth line, once there is one

    def _check_version(self) -> None:
        try:
            found = (self.data / "PG_VERSION").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            raise ConfigError(
                f"The folder {self.data} is no PostgreSQL data folder: it has no PG_VERSION;"
                " move it away, or choose another core.home."
            ) from None
        if found != programs.POSTGRES_MAJOR:
            raise ConfigError(
                f"The data folder {self.data} was made by PostgreSQL {found}, and the embedded one is"
                f" {programs.POSTGRES_MAJOR}; move its contents with pg_dump, or choose another core.home."
            )

    def _create_cluster(self) -> None:
        """Make the cluster beside its place and move it there when it is complete, so that a kill leaves no half one."""
        for unfinished in self.data.parent.glob(f"{self.name}.new-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix=f"{self.name}.new-", dir=self.data.parent))
        try:
            self._fill(fresh)
            fresh.rename(self.data)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise

    def _fill(self, folder: Path) -> None:
        self.account.give(folder)
        self._run_program(
            "initdb",
            *("-D", str(folder), "-U", _SUPERUSER, "--auth=reject", "--encoding=UTF8", "--locale=C"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"),
            *(() if self.durable else ("--no-sync",)),
        )
        self._run_program(
            *("postgres", "--single", "-j", "-D", str(folder), "-c", "log_checkpoints=off", "-c", "exit_on_error=on"),
            *("-c", f"fsync={'on' if self.durable else 'off'}", _SUPERUSER),
            statements="".join(f"{statement};\n\n" for statement in _FIRST_STATEMENTS),
        )

    def _run_program(self, name: str, *arguments: str, statements: str = "") -> None:
        """Run a program of PostgreSQL to its end; `ServiceUnavailable` with what it says when it fails."""
        program = programs.postgres_folder(self.account) / name
        outcome = run_program(self.account, [str(program), *arguments], text=statements)
        if outcome.returncode != 0:
            raise ServiceUnavailable(
                f"The embedded PostgreSQL cannot make its data folder {self.data}: {fault_in(outcome.stdout)}."
            )

    @property
    def _admission(self) -> Path:
        """Folder of the files that say who may connect; outside of the data folder, so that only we write them."""
        return self.place.data / "admission"

    def _write_admission(self) -> None:
        self._admission.mkdir(exist_ok=True)
        self._admission.chmod(0o755)
        users = sorted({_name_of(os.geteuid()), _name_of(0)})
        ident = "".join(f'admitted "{user}" {role}\n' for user in users for role in (ROLE, _SUPERUSER))
        for name, text in (
            ("pg_ident.conf", ident),
            ("pg_hba.conf", f"local all {ROLE},{_SUPERUSER} peer map=admitted\n"),
        ):
            file = self._admission / name
            file.write_text(text, encoding="utf-8")
            file.chmod(0o644)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
