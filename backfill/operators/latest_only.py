"""`LatestOnlyOperator`: goes on only in the run that is the latest by the clock."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from backfill.dag.arguments import Context
from backfill.operators.branch import BaseBranchOperator
from backfill.states import RunType
from backfill.timetables import RunDate


class LatestOnlyOperator(BaseBranchOperator):
    """Skips its direct children unless the interval after the run's contains now (S4.8).

    In runs started by hand, and where the timetable tells no next run, nothing is skipped.
    """

    ui_color = "#e9ffdb"

    def choose_branch(self, context: Context) -> Iterable[str]:
        """Name all children or none."""
        run_type = getattr(context["dag_run"], "run_type", None)
        run = RunDate(context["logical_date"], context["data_interval_start"], context["data_interval_end"])
        following = None if run_type == RunType.MANUAL else self.dag.timetable.following(run)
        if following is None:
            return sorted(self.downstream_task_ids)
        now = datetime.now(UTC)
        # A timetable of moments has intervals of no length: there the time since this run stands for the interval.
        exact = following.data_interval_start == following.data_interval_end
        left = run.data_interval_end if exact else following.data_interval_start
        self.log.info("The next interval is %s to %s, now is %s", left, following.data_interval_end, now)
        return sorted(self.downstream_task_ids) if left < now <= following.data_interval_end else []
