"""Who uses the servers of a home: the register that says which command is the last."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from backfill.embedded.processes import find_process


@dataclass(frozen=True, slots=True)
class User:
    """One `Servers` object of one process. `birth` tells the process from a later one with the same pid."""

    pid: int
    birth: str
    token: str

    @classmethod
    def of_this_process(cls) -> User:
        """Return a new user of the running process."""
        process = find_process(os.getpid())
        assert process is not None
        return cls(pid=os.getpid(), birth=process.birth, token=secrets.token_hex(8))

    @property
    def lives(self) -> bool:
        """Whether its process still exists, and is the same."""
        process = find_process(self.pid)
        return process is not None and process.birth == self.birth


class UserRegister:
    """The users of one home, in a file. The caller holds the home's lock."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def living(self) -> list[User]:
        """Return the users whose process exists; those that were killed are left out."""
        return [user for user in self._read() if user.lives]

    def add(self, user: User) -> None:
        """Enter `user`, and forget the dead."""
        self._write([*(other for other in self.living() if other != user), user])

    def remove(self, user: User) -> None:
        """Strike out `user`, and forget the dead."""
        self._write([other for other in self.living() if other != user])

    def _read(self) -> list[User]:
        try:
            return [User(**entry) for entry in json.loads(self._file.read_text(encoding="utf-8"))]
        except FileNotFoundError:
            return []
        except (
            ValueError,
            TypeError,
        ):  # cut short by a full disk or a power failure: nobody of then is left, or they are lost
            return []

    def _write(self, users: list[User]) -> None:
        fresh = self._file.with_name(f"{self._file.name}.new")
        fresh.write_text(json.dumps([asdict(user) for user in users], indent=1), encoding="utf-8")
        fresh.chmod(0o600)
        fresh.replace(self._file)
