"""What the runs under way bring about without a worker: dependencies settle task instances, mappings unfold, subdags begin."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from sqlalchemy.orm import Session

from backfill.jobs.base_job import BaseJob
from backfill.jobs.bookkeeping import Bookkeeping
from backfill.jobs.course import Course
from backfill.jobs.reconcile import Reconciler
from backfill.jobs.settling import write_decisions
from backfill.jobs.task_status import DagRunTaskStatus
from backfill.jobs.turnover import Turnover


@dataclass(frozen=True, slots=True, kw_only=True)
class Consequences:
    """Carries out what the engine decides; each step commits what it writes before the window learns of it."""

    job: BaseJob
    course: Course
    books: Bookkeeping
    reconciler: Reconciler
    turnover: Turnover

    def carry_out_decisions(self, ti_status: DagRunTaskStatus, session: Session | None) -> None:
        """Write what the engine decides, until it has nothing more to say; where a row has changed, the row wins (S0.1).

        Of mappings over thousands of items each call creates a portion.
        """
        workplace, course = self.job.at_work(), self.course
        begun = course.take_half_expanded()
        while decisions := course.window.decide(workplace.lease.now()).going_on_with(begun):
            begun = []
            written = workplace.write(partial(write_decisions, course, decisions), session)
            self.books.announce(ti_status, written.settled)
            self.books.observe(ti_status, written.changed)
            for expanded in written.expanded:
                course.window.set_length(*expanded)
            course.go_on_later_with(written.half_expanded)

    def start_subdags(self, ti_status: DagRunTaskStatus, session: Session | None) -> None:
        """Let the runs of subdags begin whose `SubDagOperator` is ready; their tasks may be others (S13.2)."""
        rhythm, window = self.course.rhythm, self.course.window
        while (subdags := self.course.subdags) and not rhythm.subdags and window.startable():
            started = self.job.at_work().write(subdags.start, session)
            self.books.observe(ti_status, started.rows)
            self.turnover.let_in(started.opened, ti_status, session)
            if started.refused:
                rhythm.hold_until_others_move(rhythm.subdags)
            self.reconciler.look_back(session)
            self.carry_out_decisions(ti_status, session)
