"""Which attempts travel together in one message (to a worker a message costs more than a short task).

Attempts of one dispatch are cut, in their order (S5.5), into bundles. What is known to be short may share a message; what is long,
unknown, or was lost with others of its process (S8.3) travels alone. While slots are idle every one of them gets something; only
where more is ready than workers take do bundles grow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from backfill.executors.base import QueuedAttempt
from backfill.executors.durations import Durations

#: Work that travels in one message, in seconds, by what its tasks took lately. A message costs a worker about a millisecond, so this
#: makes it cheap; and what is behind in a bundle waits no longer than that while other slots may come free.
BUNDLE_WORK = 0.15
#: A task that takes longer travels alone, in seconds: its message costs next to nothing then.
LONGEST_IN_COMPANY = 0.1
#: Attempts in one message: what a worker that dies holds, and what is put into one Redis entry.
LARGEST_BUNDLE = 100


@dataclass(frozen=True, slots=True)
class Backlog:
    """How busy those are who listen to one queue."""

    #: Processes that take messages.
    slots: int
    #: Messages that were sent and are not done with.
    outstanding: int

    def share(self, ready: int) -> int:
        """Return how many of `ready` attempts one message may carry so that no process is idle while another has many.

        As long as some are idle, what is ready is divided among them. Where all are busy each is to have one more message waiting;
        beyond that bundles may be as large as they get.
        """
        room = self.slots - self.outstanding
        if room <= 0:
            room = 2 * self.slots - self.outstanding
        return LARGEST_BUNDLE if room <= 0 else min(LARGEST_BUNDLE, -(-ready // room))


def pack(
    attempts: Sequence[QueuedAttempt], durations: Durations, backlogs: Mapping[str, Backlog]
) -> list[tuple[QueuedAttempt, ...]]:
    """Return `attempts` as bundles, each for one queue, in the same order within each queue."""
    bundles: list[tuple[QueuedAttempt, ...]] = []
    by_queue = sorted(attempts, key=lambda queued: queued.queue)  # keeps the order within a queue
    for queue, members in groupby(by_queue, key=lambda queued: queued.queue):
        listed = list(members)
        bundles += _cut(listed, durations, backlogs[queue].share(len(listed)))
    return bundles


def _cut(attempts: Iterable[QueuedAttempt], durations: Durations, share: int) -> Iterator[tuple[QueuedAttempt, ...]]:
    bundle: list[QueuedAttempt] = []
    work = 0.0
    for queued in attempts:
        expected = None if queued.alone else durations.expected(task_of(queued))
        short = expected is not None and expected <= LONGEST_IN_COMPANY
        seconds = expected if short and expected is not None else BUNDLE_WORK
        if bundle and (not short or len(bundle) >= share or work + seconds > BUNDLE_WORK):
            yield tuple(bundle)
            bundle, work = [], 0.0
        bundle.append(queued)
        work += seconds
        if not short:
            yield tuple(bundle)
            bundle, work = [], 0.0
    if bundle:
        yield tuple(bundle)


def task_of(queued: QueuedAttempt) -> tuple[str, str]:
    """Return what durations are known by."""
    return queued.attempt.key.dag_id, queued.attempt.key.task_id
