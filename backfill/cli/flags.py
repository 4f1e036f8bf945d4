"""The flags that `run` and `submit` share: Airflow's names and short forms, and what they make of a request (semantics, section 10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from backfill.cli.parameters import CONF, COUNT, DATE, FAILURES, POOL, REGEX, SECONDS, WordParameter
from backfill.cli.prompt import yes_option
from backfill.cli.target import subdir_option
from backfill.exceptions import UsageError
from backfill.jobs.request import BackfillRequest
from backfill.states import Reprocess

F = TypeVar("F", bound=Callable[..., Any])

#: Names of the executors, as `--executor` takes them.
EXECUTORS = ("celery", "local")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillFlags:
    """What was typed, by the names of the flags; dates are aware."""

    start_date: datetime | None
    end_date: datetime | None
    task_regex: str | None
    ignore_dependencies: bool
    mark_success: bool
    local: bool
    donot_pickle: bool
    yes: bool
    ignore_first_depends_on_past: bool
    subdir: Path | None
    pool: str | None
    delay_on_limit: float
    conf: dict[str, Any] | None
    continue_on_failures: bool
    disable_retry: bool
    reset_dagruns: bool
    rerun_failed_tasks: bool
    run_backwards: bool
    treat_dag_id_as_regex: bool
    max_active_runs: int | None
    reprocess: Reprocess | None
    max_failures: str | None
    executor: str | None
    run_at_least_once: bool
    #: Show what would be done, and do none of it.
    dry_run: bool

    def check(self) -> None:
        """Raise `UsageError` for what can be told to be wrong before any DAG is loaded (S1.2)."""
        given_range(self.start_date, self.end_date)
        if self.local and self.executor not in {None, "local"}:
            raise UsageError(
                f"-l means --executor local, but --executor {self.executor} is given; leave one of them out."
            )
        if self.reset_dagruns and self.reprocess is Reprocess.NONE:
            raise UsageError(
                "--reset-dagruns clears the runs that --reprocess none leaves out; leave out one of the two."
            )

    @property
    def date_range(self) -> tuple[datetime, datetime]:
        """Start and end, as `given_range` says."""
        return given_range(self.start_date, self.end_date)

    def request(self, *, verbose: bool) -> BackfillRequest:
        """Return what the job is asked to do."""
        start, end = self.date_range
        return BackfillRequest(
            start_date=start,
            end_date=end,
            mark_success=self.mark_success,
            donot_pickle=self.donot_pickle,
            ignore_first_depends_on_past=self.ignore_first_depends_on_past,
            ignore_task_deps=self.ignore_dependencies,
            pool=self.pool,
            delay_on_limit_secs=self.delay_on_limit,
            verbose=verbose,
            conf=self.conf,
            rerun_failed_tasks=self.rerun_failed_tasks,
            run_backwards=self.run_backwards,
            run_at_least_once=self.run_at_least_once,
            continue_on_failures=self.continue_on_failures,
            disable_retry=self.disable_retry,
            max_active_runs=self.max_active_runs,
            reprocess=self.reprocess,
            max_failures=self.max_failures,
            task_regex=self.task_regex,
            ignore_dependencies=self.ignore_dependencies,
            executor="local" if self.local else self.executor or "celery",
        )


def given_range(start_date: datetime | None, end_date: datetime | None) -> tuple[datetime, datetime]:
    """Return start and end of what was typed; one that was given alone stands for both (S2.1). Raises `UsageError`."""
    start, end = start_date or end_date, end_date or start_date
    if start is None or end is None:
        raise UsageError("No date is given; name the range with -s/--start-date and -e/--end-date.")
    if start > end:
        raise UsageError(
            f"The start date {start.isoformat()} lies after the end date {end.isoformat()}; swap -s and -e."
        )
    return start, end


def date_options(command: F) -> F:
    """Add `-s` and `-e` to a command."""
    start = click.option("-s", "--start-date", type=DATE, help="First run date; alone it is also the last.")
    end = click.option("-e", "--end-date", type=DATE, help="Last run date, included; alone it is also the first.")
    return start(end(command))


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    date_options,
    click.option("-t", "--task-regex", type=REGEX, help="Only tasks whose id matches, and what is upstream of them."),
    click.option(
        "-i", "--ignore-dependencies", is_flag=True, help="With -t only the matches; tasks start in any order."
    ),
    click.option("-m", "--mark-success", is_flag=True, help="Set task instances to success without running them."),
    click.option("-l", "--local", is_flag=True, help="Run tasks in processes of this machine: --executor local."),
    click.option(
        "-x", "--donot-pickle", is_flag=True, help="Do not ship the DAG; workers import it from their DAGs folder."
    ),
    yes_option,
    click.option(
        "-I",
        "--ignore-first-depends-on-past/--no-ignore-first-depends-on-past",
        default=True,
        help="Let tasks with depends_on_past start in the first run of the range, whatever the run before it did.  "
        "[default: on]",
    ),
    subdir_option,
    click.option("--pool", metavar="POOL", type=POOL, help="Run every task instance in this pool instead of its own."),
    click.option(
        "--delay-on-limit",
        metavar="SECONDS",
        type=SECONDS,
        default=1.0,
        show_default=True,
        help="Seconds between looks at limits that other jobs occupy.",
    ),
    click.option(
        "-n", "--dry-run", is_flag=True, help="Only show the plan, and the template fields of the first date, rendered."
    ),
    click.option("-c", "--conf", type=CONF, help="JSON object that runs get as their conf."),
    click.option("--continue-on-failures", is_flag=True, help="Admit further dates after a failure."),
    click.option("--disable-retry", is_flag=True, help="Let the first failure of a task be final."),
    click.option("--reset-dagruns", is_flag=True, help="First clear the tasks in all runs of the range, after asking."),
    click.option("--rerun-failed-tasks", is_flag=True, help="Clear failed task instances of the range once."),
    click.option("-B", "--run-backwards", is_flag=True, help="Latest date first."),
    click.option(
        "--treat-dag-id-as-regex",
        is_flag=True,
        help="TARGET is a regex: a job for each DAG whose id matches, in order of dag_id.",
    ),
    click.option(
        "--max-active-runs", metavar="N", type=COUNT, help="Runs of this job at a time, instead of the DAG's number."
    ),
    click.option(
        "--reprocess", type=WordParameter(Reprocess), help="What to do with dates that have a finished run already."
    ),
    click.option(
        "--max-failures",
        metavar="N|N%",
        type=FAILURES,
        help="Go on until this many task instances have failed: 5, or 5%.",
    ),
    click.option(
        "--executor", type=click.Choice(EXECUTORS), help="What runs tasks that name no executor.  [default: celery]"
    ),
    click.option("--run-at-least-once", is_flag=True, help="Make one run where the range holds no run date."),
)


def backfill_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Add the flags above to a command; it gets them as `flags`, a `BackfillFlags`."""

    @wraps(command)
    def collected(*args: Any, **values: Any) -> None:
        flags = BackfillFlags(**{f.name: values.pop(f.name) for f in fields(BackfillFlags)})
        command(*args, flags=flags, **values)

    for option in reversed(_OPTIONS):
        collected = option(collected)
    return collected
