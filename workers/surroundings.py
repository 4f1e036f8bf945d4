"""What a task may change about its process, put back after it, so that tasks of one process do not meet."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Self


class Surroundings:
    """Environment and working folder of this process, as they are when the `with` block of a bundle begins.

    Each attempt finds them so, but for the variables that tell a task who it is (S12.3); these are all gone at the end of the block.
    """

    def __init__(self) -> None:
        self._before: dict[bytes, bytes] = {}
        #: The same with what attempts say about themselves.
        self._environment: dict[bytes, bytes] = {}
        self._folder: str | None = None
        #: What every attempt has set about itself, by name.
        self._about: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._before = _environment()
        self._environment = self._before.copy()
        self._folder = _folder()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._about, self._environment = {}, self._before
        self.restore()

    def tell(self, about: Mapping[str, str]) -> None:
        """Set variables that the next attempts set anew; one that has its value already takes no time."""
        for name, value in about.items():
            if self._about.get(name) != value:
                os.environ[name] = self._about[name] = value
                self._environment[os.fsencode(name)] = os.fsencode(value)

    def restore(self) -> None:
        """Make environment and working folder what they were before, at the end of an attempt."""
        now = _environment()
        if now != self._environment:
            _set(self._environment, now)
        if self._folder is not None and _folder() != self._folder:
            with contextlib.suppress(OSError):  # removed meanwhile: there is nothing to go back to
                os.chdir(self._folder)


def _environment() -> dict[bytes, bytes]:
    """Return a copy of the environment, encoded: through `os.environ` it would take a tenth of a millisecond."""
    return os.environ._data.copy()  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001  # see above


def _set(environment: Mapping[bytes, bytes], now: Mapping[bytes, bytes]) -> None:
    for name in now.keys() - environment.keys():
        del os.environb[name]
    for name, value in environment.items():
        if now.get(name) != value:
            os.environb[name] = value


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109  # it is compared, after each attempt
    except OSError:
        return None
