"""What a backfill was asked to do, as it stands in the job's row: enough to go on with the job (S1.3)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from backfill.states import Reprocess


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillRequest:
    """The parameters of `BackfillJob`, by the names of its constructor (interface.md, section 2)."""

    #: Range of logical dates, both ends included, aware; None: as S2.1 says.
    start_date: datetime | None = None
    end_date: datetime | None = None
    mark_success: bool = False
    donot_pickle: bool = False
    ignore_first_depends_on_past: bool = False
    ignore_task_deps: bool = False
    pool: str | None = None
    delay_on_limit_secs: float = 1.0
    verbose: bool = False
    conf: dict[str, Any] | None = None
    rerun_failed_tasks: bool = False
    run_backwards: bool = False
    run_at_least_once: bool = False
    continue_on_failures: bool = False
    disable_retry: bool = False
    max_active_runs: int | None = None
    reprocess: Reprocess | None = None
    #: A number of failed task instances, or a percentage such as `5%` (S9.2).
    max_failures: str | None = None
    #: Searched in the task ids (S13.6).
    task_regex: str | None = None
    #: With `task_regex`: the matches only, not what is upstream of them. `-i` sets this and `ignore_task_deps`.
    ignore_dependencies: bool = False
    #: Executor of tasks that name none.
    executor: str = "celery"

    def to_json(self) -> dict[str, Any]:
        """Return the form that stands in `job.params`."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, params: dict[str, Any]) -> BackfillRequest:
        """Return the request that `to_json` wrote; keys of later versions are passed over."""
        known = {f.name for f in fields(cls)}
        values = {name: value for name, value in params.items() if name in known}
        for name in ("start_date", "end_date"):
            if values.get(name):
                values[name] = datetime.fromisoformat(values[name])
        if values.get("reprocess"):
            values["reprocess"] = Reprocess(values["reprocess"])
        return cls(**values)
