"""Which operating-system user the servers run as."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backfill.exceptions import ConfigError

#: Users that take the servers when root starts them, in order: the one that systems keep for PostgreSQL, else the one without rights.
_UNPRIVILEGED = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """An operating-system user; `name` is its name in the system's user table."""

    name: str
    uid: int
    gid: int

    @property
    def is_other(self) -> bool:
        """Whether this process must change its user to act as the account."""
        return self.uid != os.geteuid()

    def popen_options(self) -> dict[str, Any]:
        """Return what makes `subprocess` run a program as this account."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.is_other else {}

    def give(self, path: Path) -> None:
        """Make `path` the account's own."""
        if self.is_other:
            os.chown(path, self.uid, self.gid)

    def can_traverse(self, folder: Path) -> bool:
        """Whether the account may pass through `folder` and every folder above it. True for this process's own account.

        It goes by the mode bits alone, so an access list is not seen.
        """
        return not self.is_other or all(self._may_enter(step) for step in (folder, *folder.parents))

    def _may_enter(self, folder: Path) -> bool:
        status = folder.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & 0o100)
        if status.st_gid == self.gid:
            return bool(status.st_mode & 0o010)
        return bool(status.st_mode & 0o001)


def own_account() -> Account:
    """Return the account of this process; `ConfigError` when the system has no name for its user id."""
    uid = os.geteuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise ConfigError(
            f"The embedded PostgreSQL needs a user with a name, and user id {uid} has none;"
            " add it to /etc/passwd, or set database.url and celery.broker_url to servers of your own."
        ) from None
    return Account(entry.pw_name, uid, entry.pw_gid)


def server_account(data: Path) -> Account:
    """Return the account that runs the servers of the folder `data`: this process's own, save when that is root.

    Root gives way to the owner of data that exists already, else to an unprivileged user of the system.
    """
    own = own_account()
    if own.uid != 0:
        return own
    return _owner_of_any(data.glob("*")) or _unprivileged()


def _owner_of_any(folders: Iterable[Path]) -> Account | None:
    """Return the first owner of `folders` that is not root and has a name."""
    for folder in folders:
        uid = folder.stat().st_uid
        with contextlib.suppress(KeyError):
            entry = pwd.getpwuid(uid)
            if uid != 0:
                return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    return None


def _unprivileged() -> Account:
    for name in _UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise ConfigError(
        "PostgreSQL does not run as root, and this system has neither a user 'postgres' nor 'nobody';"
        " run backfill as an ordinary user, or set database.url and celery.broker_url to servers of your own."
    )
