"""The job's options that change how dependencies are judged."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """What a job was told about dependencies (semantics, section 10)."""

    #: `-i`: lines 1, 2, 4 to 6 and the dates of line 7 of S4.1 pass and settle nothing.
    ignore_task_deps: bool = False
    #: `-I`: line 6 passes in the first run of the range (S4.10).
    ignore_first_depends_on_past: bool = False
    #: `-m`: task instances become `success` in the usual order without being executed.
    mark_success: bool = False
    #: `--disable-retry`: the first failure of a task itself is final (S6.2).
    disable_retry: bool = False
    #: `--pool`: replaces the pool of every task (S5.3).
    pool: str | None = None
