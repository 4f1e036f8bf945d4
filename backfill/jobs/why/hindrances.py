"""What holds a job as a whole: its state, its holder, failures that stop it, the broker, workers that do not listen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from backfill.clock import duration_text, moment_text
from backfill.config import Settings
from backfill.jobs.holder import name_of
from backfill.jobs.policy import StopPolicy
from backfill.states import FINISHED_JOB, JobState
from backfill.store.jobs import JobRow


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerView:
    """What the broker was found to be like, by whoever asks the question."""

    #: Why nothing is known of it, in one sentence.
    trouble: str | None = None
    #: Number of workers that listen, by queue.
    listeners: Mapping[str, int] = field(default_factory=dict)
    #: Of the attempts that were asked about those whose message waits in its queue; None: it was not looked.
    waiting: frozenset[str] | None = None

    def deaf(self, queues: Iterable[str]) -> list[str]:
        """Return those of `queues` to which no worker listens; none where that is not known."""
        return [] if self.trouble else sorted({queue for queue in queues if not self.listeners.get(queue)})


def state_sentence(job: JobRow, timeout: timedelta) -> str:
    """Say how a job is, who drives it, and what lets it go on; `timeout` is that of a lease."""
    name = f"Job {job.id} of {job.dag_id}"
    match JobState(job.state):
        case JobState.QUEUED:
            return f"{name} waits for a coordinator to take it; `backfill coordinator` starts one."
        case JobState.PAUSED if job.error:
            return (
                f"{name} was paused by an internal error ({job.error.rstrip('.')}); `backfill resume {job.id}` goes on."
            )
        case JobState.PAUSED:
            return f"{name} is paused, {_driven(job, timeout)}; `backfill resume {job.id}` goes on."
        case JobState.RUNNING if job.cancel_requested:
            return f"{name} is being cancelled, {_driven(job, timeout)}; nothing more of it is started."
        case JobState.RUNNING if is_driven(job, timeout):
            return f"{name} is running, {_driven(job, timeout)}."
        case JobState.RUNNING:
            by_itself = ", as does a `backfill coordinator` by itself" if job.submitted else ""
            return f"{name} is running, {_driven(job, timeout)}; `backfill resume {job.id}` goes on with it{by_itself}."
        case ended:
            when = f" at {moment_text(job.end_date)} UTC" if job.end_date else ""
            return f"{name} has ended as {ended}{when}; `backfill status {job.id}` shows how."


def is_driven(job: JobRow, timeout: timedelta) -> bool:
    """Return whether a living process holds the job's lease."""
    return job.heartbeat_age is not None and job.heartbeat_age < timeout


def _driven(job: JobRow, timeout: timedelta) -> str:
    if job.heartbeat_age is None:
        return "and nobody drives it"
    heard = f"{name_of(job.lease_holder)}, which was heard of {duration_text(job.heartbeat_age)} ago"
    return f"driven by {heard}" if is_driven(job, timeout) else f"but its lease has run out: it was driven by {heard}"


def hindrances(job: JobRow, settings: Settings, policy: StopPolicy | None = None) -> list[str]:
    """Return what keeps a job from starting anything at all, each with its remedy; `policy` knows the failures."""
    timeout = settings.lease_timeout
    goes_on = job.state == JobState.RUNNING and is_driven(job, timeout) and not job.cancel_requested
    found = [] if goes_on else [state_sentence(job, timeout)]
    return found + policy_sentences(job, policy)


def policy_sentences(job: JobRow, policy: StopPolicy | None) -> list[str]:
    """Say that failures keep a job from starting anything, where they do (S9.2)."""
    if policy is None or policy.dispatches or job.state in FINISHED_JOB:
        return []
    return ["Nothing more is started, for the failures of --max-failures have happened; what runs ends by itself."]


def broker_sentences(broker: BrokerView | None, queues: Iterable[str], default_queue: str) -> list[str]:
    """Say what of the broker and of its workers holds messages to `queues`."""
    if broker is None:
        return []
    if broker.trouble:
        return [broker.trouble]
    return [no_worker_sentence(queue, default_queue) for queue in broker.deaf(queues)]


def no_worker_sentence(queue: str, default_queue: str) -> str:
    """Say that no worker listens to a queue, and how to start one."""
    which = "" if queue == default_queue else f" -q {queue}"
    return f"No worker listens to queue {queue!r}; start one with `backfill worker{which}`."
