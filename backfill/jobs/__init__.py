"""Jobs: what is asked for, the loop that brings it about, and what is said of it.

`backfill_job` is the loop; the other modules are its concerns, one each: `creation` (checks, row and dates in one transaction),
`planning` (what happens at each date), `admission` (dates become runs), `dispatch` (ready task instances become attempts),
`reconcile` (what executors reported against what rows say), `settling` (decisions written), `cancel` (the end by the operator's word),
`conclusion` (errors and report), `course` (what is in memory meanwhile).
"""

from backfill.exceptions import BackfillUnfinished
from backfill.jobs.backfill_job import BackfillJob
from backfill.jobs.base_job import BaseJob
from backfill.jobs.report import Report, ReportedError

__all__ = ["BackfillJob", "BackfillUnfinished", "BaseJob", "Report", "ReportedError"]
