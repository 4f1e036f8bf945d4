"""Why something is not running (S11.6): worked out from rows alone, by a process that does not drive the job, and nothing is written.

`standing` builds the engine's window again from the rows; `task_instance` answers for one task instance, `run` for a date, `summary` for a job;
`hindrances` are what holds a job as a whole, `limits` says who takes up the room under a limit, `answers` is what comes out.
"""

from backfill.jobs.why.answers import DatesAnswer, JobAnswer, ReasonCount, RunAnswer, TaskAnswer
from backfill.jobs.why.hindrances import BrokerView
from backfill.jobs.why.run import explain_run
from backfill.jobs.why.standing import Standing, blocked_errors, past_hint, read_standing
from backfill.jobs.why.summary import explain_job
from backfill.jobs.why.task_instance import FoundTaskInstance, Question, explain_task_instance, find_task_instance

__all__ = [
    "BrokerView",
    "DatesAnswer",
    "FoundTaskInstance",
    "JobAnswer",
    "Question",
    "ReasonCount",
    "RunAnswer",
    "Standing",
    "TaskAnswer",
    "blocked_errors",
    "explain_job",
    "explain_run",
    "explain_task_instance",
    "find_task_instance",
    "past_hint",
    "read_standing",
]
