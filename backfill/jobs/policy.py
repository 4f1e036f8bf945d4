"""What a failure does to the rest of the job (S9.1, S9.2)."""

from __future__ import annotations

import math

from backfill.exceptions import UsageError
from backfill.jobs.request import BackfillRequest


def failure_budget(text: str, planned: int) -> int:
    """Return how many failed task instances `--max-failures` allows to happen; `5%` is of the `planned` ones (S9.2).

    Raises `UsageError` for anything but a whole number from 1 or a percentage above 0.
    """
    number = text.removesuffix("%").strip()
    try:
        value = float(number) if text.endswith("%") else int(number)
    except ValueError:
        value = 0
    if value <= 0 or not math.isfinite(value):
        raise UsageError(
            f"max_failures (--max-failures) is {text!r}; it takes a whole number from 1 or a percentage such as 5%."
        )
    return max(1, math.ceil(planned * value / 100)) if text.endswith("%") else int(value)


class StopPolicy:
    """Counts failures and says what may still be started."""

    def __init__(self, request: BackfillRequest, *, planned: int) -> None:
        self._budget = failure_budget(request.max_failures, planned) if request.max_failures else None
        self._continue = request.continue_on_failures or self._budget is not None
        #: Task instances in `failed`, and runs that timed out.
        self.failures = 0
        #: Anything that makes the job fail (S9.1).
        self.failed = False

    def task_instance_ended_badly(self, *, itself: bool) -> None:
        """Count a task instance in `failed` (`itself`) or in `upstream_failed`."""
        self.failed = True
        self.failures += itself

    def run_failed(self, *, timed_out: bool = False) -> None:
        """Count a run that became, or was found, `failed`."""
        self.failed = True
        self.failures += timed_out

    @property
    def admits(self) -> bool:
        """Whether further dates may be admitted."""
        if self._budget is not None:
            return self.failures < self._budget
        return self._continue or not self.failed

    @property
    def dispatches(self) -> bool:
        """Whether task instances of the window may be started."""
        return self._budget is None or self.failures < self._budget

    @property
    def closes_stuck_runs(self) -> bool:
        """Whether a stuck run is closed at once, so that its place in the window is free (S9.2)."""
        return self._continue
