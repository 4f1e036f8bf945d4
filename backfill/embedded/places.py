"""Where the servers of a home keep what.

    core.home/embedded/     logs, locks, the register of users: written by the commands
    ├── data/               the servers' data; each server's folder belongs to the account that runs it
    └── run -> …            the sockets: in the folder for temporary files, for a short path

Started by root, the servers run as an unprivileged user. When that user cannot reach the home (`/root` is closed to others),
`data` is a link to a folder below `/var/lib/backfill`, whose file `home` names the home that it belongs to.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from backfill.embedded.accounts import Account
from backfill.exceptions import ConfigError

logger = logging.getLogger(__name__)

#: Where root keeps what the unprivileged user must reach and the home or the installation hides from it.
OUTSIDE = Path("/var/lib/backfill")

#: Bytes that the path of a unix socket may have on every system that we know (macOS: 104 with the closing zero).
_SOCKET_PATH_LIMIT = 103
#: Bytes of what follows the folder for temporary files: the run folder and the longest name of a socket.
_SOCKET_PATH_TAIL = len("/backfill-12345678/.s.PGSQL.5432")


@dataclass(frozen=True, slots=True)
class Place:
    """The folders of one home's servers."""

    #: Logs, locks and the register of users.
    state: Path
    #: The servers' data, without links.
    data: Path
    #: Sockets: a short path, mode 0700.
    run: Path


def make_state_folder(state: Path, account: Account) -> None:
    """Make the folder `state`; others may enter it only where another account's data is in it."""
    state.mkdir(parents=True, exist_ok=True)
    if state.stat().st_uid == os.geteuid():
        state.chmod(0o711 if account.is_other else 0o700)


def data_folder(state: Path, account: Account) -> Path:
    """Return the folder of the servers' data, which `account` can reach; made where it does not exist."""
    folder = state / "data"
    if not folder.is_dir():
        folder.unlink(missing_ok=True)  # a link whose target somebody removed
        _make_data_folder(folder, account)
    actual = folder.resolve()
    if not account.can_traverse(actual):
        raise ConfigError(
            f"The data folder {actual} cannot be reached by user {account.name!r}, as which root runs the embedded servers;"
            f" let others pass through the folders above it, or choose another core.home."
        )
    return actual


def _make_data_folder(folder: Path, account: Account) -> None:
    if account.can_traverse(folder.parent):
        folder.mkdir()
        folder.chmod(0o755)
        return
    OUTSIDE.mkdir(parents=True, exist_ok=True)
    actual = Path(tempfile.mkdtemp(prefix="home-", dir=OUTSIDE))
    actual.chmod(0o755)
    (actual / "home").write_text(f"{folder.parent.parent}\n", encoding="utf-8")
    folder.symlink_to(actual)
    logger.info("User %s cannot reach %s; the embedded servers' data is in %s", account.name, folder.parent, actual)


def run_folder(state: Path, account: Account) -> Path:
    """Return the folder of the sockets; made where it does not exist, and the same as long as it does.

    It is outside of the home, whose path may be too long for sockets and whose file system may not know them.
    """
    link = state / "run"
    if link.is_symlink():
        folder = link.readlink()
        if _is_private(folder, account):
            return folder
        link.unlink()
    folder = Path(tempfile.mkdtemp(prefix="backfill-", dir=_short_folder(account)))
    account.give(folder)
    link.symlink_to(folder)
    return folder


def remove_run_folder(state: Path) -> None:
    """Remove the folder of the sockets, when no server is left to use it."""
    link = state / "run"
    if not link.is_symlink():
        return
    folder = link.readlink()
    link.unlink()
    if folder.is_dir():
        for leftover in folder.iterdir():
            leftover.unlink()
        folder.rmdir()


def _is_private(folder: Path, account: Account) -> bool:
    """Whether `folder` is what we made: where everybody may write, another user may have put one in its place."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    return (
        stat.S_ISDIR(status.st_mode) and status.st_uid == account.uid and stat.S_IMODE(status.st_mode) == stat.S_IRWXU
    )


def _short_folder(account: Account) -> Path:
    """Return a folder for temporary files that `account` can reach, with a path that suits sockets and URLs."""
    for folder in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108  # a private folder of a new name is made in it
        fits = len(os.fsencode(folder)) <= _SOCKET_PATH_LIMIT - _SOCKET_PATH_TAIL
        if fits and re.fullmatch(r"[\w./-]+", str(folder), re.ASCII) and account.can_traverse(folder):
            return folder
    raise ConfigError(
        f"The folder for temporary files {tempfile.gettempdir()} has a path that does not suit unix sockets, or user"
        f" {account.name!r} cannot reach it, and /tmp will not do either; set TMPDIR to a short path that is open to all."
    )
