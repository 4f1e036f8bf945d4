"""Where task instances stand, by their rows: in the window, in their buckets, and to whoever listens (S8.7)."""

from __future__ import annotations

from collections.abc import Iterable

from backfill.facts import TaskInstanceFacts
from backfill.jobs.base_job import BaseJob
from backfill.jobs.conclusion import tell_ends
from backfill.jobs.course import Course
from backfill.jobs.task_status import DagRunTaskStatus, TaskInstance
from backfill.states import FINISHED, TaskInstanceState


class Bookkeeping:
    """Takes in rows as they are now."""

    def __init__(self, job: BaseJob, course: Course) -> None:
        self._job = job
        self._course = course

    def observe(self, ti_status: DagRunTaskStatus, rows: Iterable[TaskInstanceFacts]) -> None:
        """Take in rows; what is news about them is sorted and told."""
        observed, window = list(rows), self._course.window
        keys = {row.id: window.key(row.id) for row in observed if window.knows(row.id)}
        changed = window.take_in(observed)
        for row in observed:
            key = keys.get(row.id)
            if key is not None and (key.map_index != row.map_index or not window.knows(row.id)):
                ti_status.forget(key)  # an expansion gave it an index, and so another key, or did without it (S4.7)
        self.announce(ti_status, changed)

    def announce(self, ti_status: DagRunTaskStatus, changed: Iterable[TaskInstanceFacts]) -> None:
        """Sort what the window knows to have changed, and tell of what has ended."""
        ended = []
        for ti in self._course.task_instances(changed):
            self.sort(ti_status, ti)
            if ti.facts.state in FINISHED or ti.facts.state == TaskInstanceState.UP_FOR_RETRY:
                ended.append(ti)
        self._course.note_ends(ended)
        tell_ends(self._job, ended)

    def sort(self, ti_status: DagRunTaskStatus, ti: TaskInstance) -> None:
        """Put `ti` into its bucket, and count it if it ended badly (S9.1)."""
        ti_status.sort(ti)
        self._course.count_failures(ti)
