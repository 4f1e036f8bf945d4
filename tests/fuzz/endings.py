"""What is wrong with the way in which a command ended."""

from __future__ import annotations

from collections.abc import Iterator

from click.testing import Result

#: How a command may end on bad input: well, or as interface.md says of wrong use and of nothing to do.
FORESEEN = {0, 2, 5}


def faults(ended: Result) -> list[str]:
    """Return what nobody wants to see: it did neither what it was asked to do, nor say in one sentence why not."""
    return list(_faults(ended))


def _faults(ended: Result) -> Iterator[str]:
    if not (ended.exception is None or isinstance(ended.exception, SystemExit)):
        yield f"raised {ended.exception!r}"
    if ended.exit_code not in FORESEEN:
        yield f"ended with {ended.exit_code}: {ended.stderr!r}"
    if "Traceback" in ended.output or "An unexpected " in ended.stderr:
        yield f"lost its head: {ended.output!r}"
    if ended.exit_code and ended.stdout:
        yield f"wrote data though it failed: {ended.stdout!r}"
    if ended.exit_code and not ended.stderr.startswith(("Error: ", "Usage: ")):
        yield f"does not say what is wrong: {ended.stderr!r}"
