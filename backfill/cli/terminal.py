"""What stands at the other end of stdout and stderr, and how to write to it.

Colour and animation need a terminal on stdout and no `NO_COLOR` (interface.md, section 3). Users' texts are printed as they are:
no markup is read in them, and control characters that could move the cursor are made visible.
"""

from __future__ import annotations

import os
import sys

from rich.console import Console

#: Columns of a "terminal" that is a file or a pipe: nothing is cut or wrapped there.
_ENDLESS = 100_000
_MINUTE, _HOUR = 60, 3600


class _Console(Console):
    """A console whose reader may leave, where rich would end the process, and whose cursor stays visible.

    A command without anybody who takes its data is done; a job goes on though nobody reads its progress. A process that is
    killed cannot bring the cursor back.
    """

    def on_broken_pipe(self) -> None:
        self.quiet = True
        if not self.stderr:
            raise BrokenPipeError

    def show_cursor(self, show: bool = True) -> bool:
        return show and super().show_cursor(show)


def animated() -> bool:
    """Tell whether colour and a display that redraws itself are welcome."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") in {"dumb", "unknown"}
    return sys.stdout.isatty() and sys.stderr.isatty() and not plain


def data_console() -> Console:
    """Return a console on stdout, for data."""
    return _console(to_stderr=False)


def note_console() -> Console:
    """Return a console on stderr, for progress and notes."""
    return _console(to_stderr=True)


def _console(*, to_stderr: bool) -> Console:
    lively = animated()
    return _Console(
        stderr=to_stderr,
        force_terminal=None if lively else False,
        no_color=not lively,
        color_system="auto" if lively else None,
        width=None if (sys.stderr if to_stderr else sys.stdout).isatty() else _ENDLESS,
        markup=False,
        highlight=False,
        emoji=False,
    )


def visible(text: str) -> str:
    """Return `text` on one line per line, with control characters written out."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text.expandtabs(4))


def rate_text(per_second: float) -> str:
    """Return a rate for people, in the unit that gives a number above one: `41.2/s`, `12.5/min`, `3.0/h`."""
    if not per_second:
        return "0/s"
    for unit, seconds in (("s", 1), ("min", _MINUTE)):
        if per_second * seconds >= 1:
            return f"{per_second * seconds:.1f}/{unit}"
    return f"{per_second * _HOUR:.1f}/h"
