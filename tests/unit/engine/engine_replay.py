"""Replays a scripted scenario on the engine alone: rows in a dict instead of a database, scripted ends instead of workers.

The shape of a scenario is that of `backfill.testing.run_scenario`, and `dag.groups` may name mapped task groups: id to
`expand`, which a task joins with `group`. Which attempt ends next is drawn from `rng`, so that other
seeds are other orders of events.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from backfill import DAG, task
from backfill.dag.expand_input import ProductInput
from backfill.dag.subset import chosen_tasks
from backfill.dag.task_group import MappedTaskGroup
from backfill.engine.graph import Graph
from backfill.engine.limits import Occupancy
from backfill.engine.retries import is_eligible
from backfill.engine.window import Options, RunOutcome, Window
from backfill.exceptions import UsageError
from backfill.facts import PreviousRun, RunFacts, TaskInstanceFacts
from backfill.operators import BranchPythonOperator, EmptyOperator, PythonOperator, ShortCircuitOperator
from backfill.operators.branch import skipped_by_choice, skipped_downstream
from backfill.states import ENDED_BADLY, FINISHED, IN_FLIGHT, UNFINISHED, DagRunState, TaskInstanceState

S = TaskInstanceState


class OccupancyRow(NamedTuple):
    pool: str
    dag_id: str
    task_id: str
    dag_run_id: int
    count: int
    slots: int


# -- the DAG of a scenario ----------------------------------------------------------------------------------------------


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _mapped_body(a: Any = None, b: Any = None, c: Any = None) -> None:
    return None


def build_dag(spec: dict[str, Any]) -> DAG:
    """Return the DAG that a scenario describes, made with the public classes."""
    schedule = spec.get("schedule", "@daily")
    if isinstance(schedule, dict):
        schedule = timedelta(seconds=schedule["seconds"])
    with DAG(
        spec.get("dag_id", "d"),
        schedule=schedule,
        start_date=read_date(spec.get("start_date", "2023-01-01")),
        end_date=read_date(spec["end_date"]) if "end_date" in spec else None,
        max_active_runs=spec.get("max_active_runs", 16),
        max_active_tasks=spec.get("max_active_tasks", 16),
    ) as dag:
        groups: dict[str, MappedTaskGroup] = {}
        for each in spec["tasks"]:
            in_group = "group" in each
            operator = _in_group(dag, groups, spec["groups"], each) if in_group else _operator(dag, each)
            for upstream in each.get("upstream", ()):
                dag.set_dependency(upstream, each["task_id"])
            if each.get("setup"):
                operator.as_setup()
            if each.get("teardown"):
                operator.as_teardown(
                    setups=[dag.task_dict[setup] for setup in each.get("setups", ())],
                    on_failure_fail_dagrun=each.get("on_failure_fail_dagrun", False),
                )
    dag.validate()
    return dag


_PASSED_ON = (
    "trigger_rule",
    "retries",
    "depends_on_past",
    "wait_for_downstream",
    "priority_weight",
    "weight_rule",
    "pool",
    "pool_slots",
    "max_active_tis_per_dag",
    "max_active_tis_per_dagrun",
)


def _operator(dag: DAG, each: dict[str, Any]) -> Any:
    arguments = {"task_id": each["task_id"], "retry_delay": timedelta(0)}
    arguments |= {name: each[name] for name in _PASSED_ON if name in each}
    match each.get("kind", "python"):
        case "empty":
            return EmptyOperator(**arguments)
        case "branch":
            return BranchPythonOperator(python_callable=_nothing, **arguments)
        case "short_circuit":
            ignore = each.get("ignore_downstream_trigger_rules", True)
            return ShortCircuitOperator(python_callable=_nothing, ignore_downstream_trigger_rules=ignore, **arguments)
        case "mapped":
            values = _values(dag, each["expand"])
            return task(**arguments)(_mapped_body).expand(**dict(zip("abc", values, strict=False))).operator
        case _:
            return PythonOperator(python_callable=_nothing, **arguments)


def _in_group(dag: DAG, groups: dict[str, MappedTaskGroup], expand: dict[str, Any], each: dict[str, Any]) -> Any:
    """Make a task in its mapped group, and the group with its first task."""
    group_id = each["group"]
    if group_id not in groups:
        over = dict(zip("abc", _values(dag, expand[group_id]), strict=False))
        groups[group_id] = MappedTaskGroup(group_id, expand_input=ProductInput(over, group_id), prefix_group_id=False)
    group = groups[group_id]
    with group:
        return _operator(dag, each)


def _values(dag: DAG, expand: Any) -> list[Any]:
    parts = expand if isinstance(expand, list) else [expand]
    return [part["literal"] if "literal" in part else dag.task_dict[part["xcom"]].output for part in parts]


def read_date(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def date_key(date: datetime) -> str:
    return date.strftime("%Y-%m-%d" if date.time() == datetime.min.time() else "%Y-%m-%dT%H:%M:%S")


# -- the rows -----------------------------------------------------------------------------------------------------------


@dataclass
class DagRun:
    facts: RunFacts
    state: str
    run_type: str


class Rows:
    """A database of two tables."""

    def __init__(self) -> None:
        self.task_instances: dict[int, TaskInstanceFacts] = {}
        self.runs: dict[datetime, DagRun] = {}
        self.values: dict[int, Any] = {}
        self._ids = itertools.count(1)

    def add_run(self, date: datetime, state: str, run_type: str) -> DagRun:
        facts = RunFacts(next(self._ids), "d", date.isoformat(), date, date, date, state, run_type, {}, date, 0)
        self.runs[date] = DagRun(facts, state, run_type)
        return self.runs[date]

    def add(
        self, dag_run_id: int, task_id: str, map_index: int, max_tries: int, state: str = "none", tries: int = 0
    ) -> int:
        ti_id = next(self._ids)
        self.task_instances[ti_id] = TaskInstanceFacts(
            ti_id, dag_run_id, task_id, map_index, state, tries, max_tries, False, None, None, 0, None
        )
        return ti_id

    def change(self, ti_id: int, **values: Any) -> TaskInstanceFacts:
        self.task_instances[ti_id] = self.task_instances[ti_id]._replace(**values)
        return self.task_instances[ti_id]

    def of_run(self, dag_run_id: int, task_id: str | None = None) -> list[TaskInstanceFacts]:
        return [
            row
            for row in self.task_instances.values()
            if row.dag_run_id == dag_run_id and (task_id is None or row.task_id == task_id)
        ]


# -- the job ------------------------------------------------------------------------------------------------------------


class Refused(Exception):
    """The job does nothing."""


class Replay:
    """One backfill of a scenario."""

    def __init__(self, scenario: dict[str, Any], rng: random.Random) -> None:
        self.scenario = scenario
        self.rng = rng
        self.flags = scenario.get("flags", {})
        self.dag = build_dag(scenario["dag"])
        self.rows = Rows()
        self.executions: Counter[tuple[str, str, int]] = Counter()
        self._seen: dict[datetime, frozenset[str]] = {}
        self.now = datetime(2025, 1, 1, tzinfo=UTC)
        self.failed = False
        self.deadlocked = False
        self.rounds_checked = 0
        self.pools = {"default_pool": 128} | scenario.get("pools", {})
        self._preset()

    # -- before the job

    def _preset(self) -> None:
        for entry in self.scenario.get("preset", ()):
            date = read_date(entry["date"])
            if "dag_run" in entry:
                run = self.rows.add_run(date, entry["dag_run"], entry["run_type"])
                has_rows = date >= self.dag.start_date or entry["run_type"] == "backfill"
                for each in self.dag.task_dict.values() if has_rows else ():
                    length = each.expand_input.literal_length() if each.expand_input is not None else None
                    for index in range(length) if length else [-1]:
                        self._preset_row(run, each.task_id, index, entry.get("task_instances"))
            else:
                self._preset_override(self.rows.runs[date], entry)

    def _preset_row(self, run: DagRun, task_id: str, index: int, state: str | None, **given: Any) -> int:
        state = state or "none"
        default = 0 if state in {"none", "skipped", "upstream_failed", "removed"} else 1
        retries = self.dag.task_dict[task_id].retries if task_id in self.dag.task_dict else 0
        ti_id = self.rows.add(run.facts.id, task_id, index, retries, state, given.get("try_number", default))
        if state == "up_for_reschedule":
            self.rows.change(ti_id, try_open=True)
        if state in {"up_for_retry", "up_for_reschedule"}:
            self.rows.change(ti_id, next_attempt_at=self.now)
        return ti_id

    def _preset_override(self, run: DagRun, entry: dict[str, Any]) -> None:
        task_id, index = entry["task_id"], entry.get("map_index", -1)
        for row in self.rows.of_run(run.facts.id, task_id):
            if row.map_index == index or (row.map_index == -1 and index >= 0):
                del self.rows.task_instances[row.id]
        if entry["state"] == "absent":
            return
        given = {"try_number": entry["try_number"]} if "try_number" in entry else {}
        ti_id = self._preset_row(run, task_id, index, entry["state"], **given)
        if "return" in entry:
            self.rows.values[ti_id] = entry["return"]
        if "follow" in entry:
            self.rows.change(ti_id, skips=skipped_by_choice(self.dag.task_dict[task_id], entry["follow"]))

    # -- planning

    def _plan(self) -> list[datetime]:
        try:
            self.chosen = chosen_tasks(
                self.dag, self.flags.get("task_regex"), not self.flags.get("include_upstream", True)
            )
        except UsageError:
            raise Refused from None
        start, end = read_date(self.scenario["start_date"]), read_date(self.scenario["end_date"])
        dates = [each.logical_date for each in self.dag.timetable.run_dates(start, end)]
        dates = [date for date in dates if self.dag.end_date is None or date <= self.dag.end_date]
        past = any(self.dag.task_dict[task_id].depends_on_past for task_id in self.chosen)
        foreign = [run for date, run in self.rows.runs.items() if date in dates and run.state == "running"]
        if (
            not dates
            or (past and self.flags.get("run_backwards"))
            or any(run.run_type != "backfill" for run in foreign)
        ):
            raise Refused
        return dates[::-1] if self.flags.get("run_backwards") else dates

    def _is_done(self, date: datetime) -> bool:
        """Tell if the run of a date counts as done (S2.7, S2.9)."""
        run = self.rows.runs.get(date)
        if run is None or run.state in {"queued", "running"}:
            return False
        found = self.rows.of_run(run.facts.id)
        missing = self.chosen - {row.task_id for row in found}
        others = self.dag.task_dict.keys() - self.chosen
        bad = any(row.state in ENDED_BADLY for row in found if row.task_id not in others)
        rerun = bad and self.flags.get("rerun_failed_tasks")
        ours = [row for row in found if row.task_id in self.dag.task_dict]
        return not missing and not rerun and all(row.state in FINISHED - {S.REMOVED} for row in ours)

    # -- the loop

    def run(self) -> dict[str, Any]:
        try:
            self.dates = self._plan()
        except Refused:
            return {"job": "refused"}
        self.options = Options(
            ignore_task_deps=self.flags.get("ignore_task_deps", False),
            ignore_first_depends_on_past=self.flags.get("ignore_first_depends_on_past", True),
            mark_success=self.flags.get("mark_success", False),
            disable_retry=self.flags.get("disable_retry", False),
        )
        self.graph = Graph.compile(self.dag, self.chosen, options=self.options)
        if not set(self.graph.pools) <= set(self.pools):
            return {"job": "failed", "error": "pool_not_found"}
        self.window = Window(self.graph, self.options)
        self.active: dict[int, DagRun] = {}
        self.pending = list(enumerate(self.dates))
        while self._tick():
            pass
        self._close()
        state = "deadlocked" if self.deadlocked else "failed" if self.failed else "success"
        return {"job": state, "task_instances": self._final_states(), "dag_runs": self._final_runs()}

    def _tick(self) -> bool:
        self._admit()
        self._carry_out_decisions()
        if self._finish_runs():
            return True
        self._dispatch()
        self.check_round()
        in_flight = [
            row for row in self.rows.task_instances.values() if row.state in IN_FLIGHT and row.dag_run_id in self.active
        ]
        if in_flight:
            changed = [self._go_on(row) for row in self.rng.sample(in_flight, self.rng.randint(1, len(in_flight)))]
            self.window.take_in(changed)
            return True
        due = self.window.next_due()
        if due is not None:
            self.now = max(self.now, due)
            return True
        return not self.window.idle() or self._has_next_date()

    def _has_next_date(self) -> bool:
        room = len(self._running_runs()) < self.dag.max_active_runs
        return bool(self.pending) and room and self._admits()

    def _admits(self) -> bool:
        return not self.failed or self.flags.get("continue_on_failures", False)

    def _running_runs(self) -> list[DagRun]:
        return [run for run in self.rows.runs.values() if run.state == "running" and run.run_type != "manual"]

    def _admit(self) -> None:
        """Admit what has room; failures that are found there stop the admission only from the next time on."""
        found_failed = False
        while self.pending and self._admits():
            ordinal, date = self.pending[0]
            if self._is_done(date):
                self.pending.pop(0)
                run = self.rows.runs[date]
                states = [row.state for row in self.rows.of_run(run.facts.id) if row.task_id in self.chosen]
                found_failed |= any(state in ENDED_BADLY for state in states)
                found_failed |= run.state == "failed" and not self.graph.others
                continue
            run = self.rows.runs.get(date)
            if (run is None or run.state != "running") and len(self._running_runs()) >= self.dag.max_active_runs:
                break
            self.pending.pop(0)
            run = run or self.rows.add_run(date, "running", "backfill")
            run.state, run.run_type = "running", "backfill"
            run.facts = run.facts._replace(ordinal=ordinal, state="running", run_type="backfill")
            self._align(run)
            self.active[run.facts.id] = run
            rows = self.rows.of_run(run.facts.id)
            self.rng.shuffle(rows)
            self.window.admit(run.facts, rows, first=date == min(self.dates), previous=self.previous(date))
            for row in rows:
                found_failed |= row.state in ENDED_BADLY and row.task_id in self.chosen
        self.failed |= found_failed

    def _align(self, run: DagRun) -> None:
        """Bring the rows of a run in line with the DAG (S2.12), clear failed ones (S2.9), and free orphans (S8.5)."""
        for row in self.rows.of_run(run.facts.id):
            self._align_row(row)
        for task_id in self.graph.task_ids:
            self._align_indexes(run, task_id)

    def _align_row(self, row: TaskInstanceFacts) -> None:
        known = self.dag.task_dict.get(row.task_id)
        if known is None:
            self.rows.change(row.id, state=S.REMOVED)
        elif row.task_id not in self.chosen:
            return
        elif self.flags.get("rerun_failed_tasks") and row.state in ENDED_BADLY:
            self.rows.change(row.id, state=S.NONE, max_tries=row.try_number + known.retries, try_open=False)
        elif row.state in IN_FLIGHT | {S.SCHEDULED} or (row.state == S.REMOVED and row.map_index == -1):
            self.rows.change(row.id, state=S.NONE)

    def _align_indexes(self, run: DagRun, task_id: str) -> None:
        found = {row.map_index: row for row in self.rows.of_run(run.facts.id, task_id)}
        indexes = self.graph.literal_indexes(task_id)
        if self.graph.spec(task_id).is_dynamic and found:
            return
        if -1 in found and 0 in indexes:
            found[0] = self.rows.change(found.pop(-1).id, map_index=0)
        for index in indexes:
            if index not in found:
                self.rows.add(run.facts.id, task_id, index, self.dag.task_dict[task_id].retries)
            elif found[index].state == S.REMOVED:
                self.rows.change(found[index].id, state=S.NONE)
        for index in found.keys() - set(indexes):
            self.rows.change(found[index].id, state=S.REMOVED)

    def previous(self, date: datetime) -> PreviousRun | None:
        """Return P of S4.9."""
        earlier = [d for d, run in self.rows.runs.items() if d < date and run.run_type != "manual"]
        if not earlier:
            return None
        run = self.rows.runs[max(earlier)]
        states: dict[str, list[str]] = defaultdict(list)
        for row in self.rows.of_run(run.facts.id):
            if row.task_id in self.graph.past_task_ids:
                states[row.task_id].append(row.state)
        before = {r.facts.id for d, r in self.rows.runs.items() if d < date}
        rows = (row for row in self.rows.task_instances.values() if row.dag_run_id in before)
        # as it was when the run was admitted: the window is not told again
        seen = self._seen.setdefault(date, frozenset(row.task_id for row in rows if row.state != S.REMOVED))
        return PreviousRun(
            max(earlier),
            run.facts.id,
            run.facts.id in self.active,
            {t: tuple(s) for t, s in states.items()},
            seen,
        )

    def _carry_out_decisions(self) -> None:
        while decisions := self.window.decide(self.now):
            for ti_id, state in decisions.settle:
                row = self.rows.task_instances[ti_id]
                assert row.state in UNFINISHED - IN_FLIGHT
                tries = row.try_number + (state == S.SUCCESS and not row.try_open)
                self.rows.change(ti_id, state=state, try_number=tries, try_open=False, next_attempt_at=None)
                self.failed |= state in ENDED_BADLY
            for ti_id in decisions.unschedule:
                self.rows.change(ti_id, state=S.NONE)
            self.window.take_in([self.rows.task_instances[ti_id] for ti_id, _ in decisions.settle])
            for dag_run_id, task_id in decisions.expand:
                self._expand(dag_run_id, task_id)

    def _expand(self, dag_run_id: int, task_id: str) -> None:
        length = self.graph.mapping_length(task_id, self._lengths(dag_run_id, self.graph.mapping_sources(task_id)))
        found = {row.map_index: row for row in self.rows.of_run(dag_run_id, task_id)}
        if length:
            if -1 in found:
                found[0] = self.rows.change(found.pop(-1).id, map_index=0)
            for index in set(range(length)) - found.keys():
                self.rows.add(dag_run_id, task_id, index, self.dag.task_dict[task_id].retries)
            for index, row in found.items():
                if row.state == S.REMOVED and index < length:
                    self.rows.change(row.id, state=S.NONE)
        for index, row in found.items():
            if length is not None and index >= length and row.state not in IN_FLIGHT:
                self.rows.change(row.id, state=S.REMOVED)
        rows = self.rows.of_run(dag_run_id, task_id)
        self.rng.shuffle(rows)
        self.window.take_in(rows)
        self.window.set_length(dag_run_id, task_id, length)

    def _lengths(self, dag_run_id: int, sources: frozenset[str]) -> dict[tuple[str, str], int]:
        lengths = {}
        for source in sources:
            rows = [row for row in self.rows.of_run(dag_run_id, source) if row.id in self.rows.values]
            if self.dag.task_dict[source].has_many_instances:
                lengths[source, "return_value"] = len(rows)
            elif rows:
                lengths[source, "return_value"] = len(self.rows.values[rows[0].id])
        return lengths

    # -- dispatch and execution

    def occupancy(self) -> Occupancy:
        in_flight = [row for row in self.rows.task_instances.values() if row.state in IN_FLIGHT]
        rows = (
            OccupancyRow(spec.pool, "d", row.task_id, row.dag_run_id, 1, spec.pool_slots)
            for row in in_flight
            if row.task_id in self.graph.index
            for spec in (self.graph.spec(row.task_id),)
        )
        return Occupancy(rows, pool_sizes=self.pools)

    def _dispatch(self) -> None:
        picked = self.window.pick(self.occupancy(), None)
        scheduled = self.window.ready_unplaced(picked)
        # some are queued, some only later: a crash between two transactions looks like this
        sent = picked[: self.rng.randint(1, len(picked))] if picked else []
        changed = []
        for ti_id in sent:
            row = self.rows.task_instances[ti_id]
            changed.append(
                self.rows.change(
                    ti_id,
                    state=S.QUEUED,
                    try_number=row.try_number + (not row.try_open),
                    try_open=True,
                    attempt_id=f"a{ti_id}",
                )
            )
        changed += [self.rows.change(ti_id, state=S.SCHEDULED) for ti_id in scheduled]
        self.window.take_in(changed)

    def check_round(self) -> None:
        """Hold against what must be so in each round."""
        self.rounds_checked += 1
        self.check_limits()

    def check_limits(self) -> None:
        occupancy = self.occupancy()
        assert occupancy.by_dag["d"] <= self.dag.max_active_tasks
        assert len(self._running_runs()) <= max(self.dag.max_active_runs, len(self.rows.runs) - len(self.dates))
        for pool, taken in occupancy.by_pool.items():
            assert self.pools[pool] == -1 or taken <= self.pools[pool]
        for each in self.graph.tasks:
            limit = each.max_active_tis_per_dag
            assert limit is None or occupancy.by_task["d", each.task_id] <= limit
            limit = each.max_active_tis_per_dagrun
            assert limit is None or all(occupancy.by_run[run_id, each.task_id] <= limit for run_id in self.active)

    def _go_on(self, row: TaskInstanceFacts) -> TaskInstanceFacts:
        """Let an attempt in flight start, or end as the script says."""
        if row.state == S.QUEUED and self.rng.random() < 0.5:
            return self.rows.change(row.id, state=S.RUNNING)
        known = self.dag.task_dict[row.task_id]
        self.rows.values.pop(row.id, None)
        element = self._script(row)
        if isinstance(element, dict) and isinstance(element.get("return", []), int) and self._feeds_a_mapping(known):
            element = "fail_no_retry"
        closed = {"try_open": False, "attempt_id": None, "next_attempt_at": None, "skips": None}
        if element == "failed" and is_eligible(
            retries=known.retries,
            try_number=row.try_number,
            max_tries=row.max_tries,
            disable_retry=self.options.disable_retry,
        ):
            return self.rows.change(row.id, **closed | {"state": S.UP_FOR_RETRY, "next_attempt_at": self.now})
        if element in ("failed", "fail_no_retry"):
            self.failed = True
            return self.rows.change(row.id, **closed | {"state": S.FAILED})
        if element == "skipped":
            return self.rows.change(row.id, **closed | {"state": S.SKIPPED})
        if element == "reschedule":
            due = self.now + timedelta(minutes=self.rng.randint(0, 5))
            return self.rows.change(row.id, state=S.UP_FOR_RESCHEDULE, attempt_id=None, next_attempt_at=due, skips=None)
        self.rows.values[row.id] = element["return"] if isinstance(element, dict) and "return" in element else [1]
        return self.rows.change(row.id, **closed | {"state": S.SUCCESS, "skips": self._decide_skips(row, element)})

    def _feeds_a_mapping(self, source: Any) -> bool:
        """Tell if something is mapped over the one value of a task, which has to be a collection then (S12.5)."""
        feeds = any(source.task_id in self.graph.mapping_sources(task_id) for task_id in self.graph.task_ids)
        return feeds and not source.has_many_instances

    def _decide_skips(self, row: TaskInstanceFacts, element: Any) -> tuple[str, ...] | None:
        known = self.dag.task_dict[row.task_id]
        if isinstance(element, dict) and "follow" in element:
            return skipped_by_choice(known, element["follow"])
        if element is False:
            return skipped_downstream(known, everything=known.decides_skips == "downstream")
        return None

    def _script(self, row: TaskInstanceFacts) -> Any:
        date = next(run for run in self.active.values() if run.facts.id == row.dag_run_id).facts.logical_date
        script = self.scenario.get("outcomes", {}).get(row.task_id, {})
        element = script.get(date_key(date), script.get("*", "success"))
        if isinstance(element, dict) and "by_index" in element:
            element = element["by_index"].get(str(row.map_index), element["by_index"].get("*", "success"))
        counter = (row.task_id, date_key(date), row.map_index)
        self.executions[counter] += 1
        if isinstance(element, list):
            element = element[self.executions[counter] - 1] if self.executions[counter] <= len(element) else "success"
        return element

    # -- the end

    def _finish_runs(self) -> bool:
        outcomes = self.window.finished_runs()
        stuck = self.window.stuck_runs()
        if stuck and self.flags.get("continue_on_failures"):
            self.deadlocked = True
            outcomes += [RunOutcome(dag_run_id, DagRunState.FAILED, "all_tasks_deadlocked") for dag_run_id in stuck]
        for outcome in outcomes:
            self.active.pop(outcome.dag_run_id).state = str(outcome.state)
            self.failed |= outcome.state == DagRunState.FAILED and outcome.counts
            self.window.remove(outcome.dag_run_id)
        return bool(outcomes)

    def _close(self) -> None:
        self.deadlocked |= bool(self.window.stuck_runs())
        for run in self.active.values():
            run.state = "failed"

    def _final_states(self) -> dict[str, Any]:
        states: dict[str, Any] = defaultdict(dict)
        dates = {run.facts.id: date_key(date) for date, run in self.rows.runs.items()}
        for row in sorted(self.rows.task_instances.values(), key=lambda row: row.map_index):
            date = dates[row.dag_run_id]
            entry = {
                "state": None if row.state == S.NONE else str(row.state),
                "try_number": row.try_number,
                "executions": self.executions[row.task_id, date, row.map_index],
            }
            known = self.dag.task_dict.get(row.task_id)
            if row.map_index >= 0 or (known is not None and known.has_many_instances):
                states[row.task_id].setdefault(date, {"map": {}})["map"][str(row.map_index)] = entry
            else:
                states[row.task_id][date] = entry
        return dict(states)

    def _final_runs(self) -> dict[str, str]:
        return {date_key(date): run.state for date, run in self.rows.runs.items()}


def replay(scenario: dict[str, Any], seed: int) -> dict[str, Any]:
    """Run a scenario with the order of events that `seed` gives; the answer has the shape of its `expect`."""
    return Replay(scenario, random.Random(seed)).run()


def differences(scenario: dict[str, Any], found: dict[str, Any], expect: dict[str, Any]) -> list[str]:
    """Return what differs from `expect`, as far as it is comparable and not disputed."""
    disputed = set(scenario.get("disputed", ()))
    told = []
    if "job" not in disputed and found["job"] != expect["job"]:
        told.append(f"job: {found['job']} instead of {expect['job']}")
    if expect["job"] == "refused" or expect.get("error") == "pool_not_found":
        return told
    if "dag_runs" not in disputed:
        ours, theirs = found["dag_runs"], expect["dag_runs"]
        dates = sorted(date for date in ours.keys() | theirs.keys() if ours.get(date) != theirs.get(date))
        told += [f"run of {date}: {ours.get(date)} instead of {theirs.get(date)}" for date in dates]
    if "task_instances" not in disputed:
        kinds = {each["task_id"]: each.get("kind", "python") for each in scenario["dag"]["tasks"]}
        ours, theirs = dict(_flat(found["task_instances"])), dict(_flat(expect["task_instances"]))
        for key in sorted(ours.keys() | theirs.keys()):
            told += _differences_of_one(key, ours.get(key), theirs.get(key), is_empty=kinds.get(key[0]) == "empty")
    return told


def _differences_of_one(key: tuple[str, str, str], ours: Any, theirs: Any, *, is_empty: bool) -> list[str]:
    task_id, date, index = key
    name = f"{task_id} of {date}" if index == "-1" else f"{task_id}[{index}] of {date}"
    if ours is None or theirs is None:
        return [f"{name}: {ours and ours['state']} instead of {'no row' if theirs is None else theirs['state']}"]
    fields = ["state"]
    if "executions" in theirs and not is_empty:
        fields.append("executions")
        fields += ["try_number"] if theirs["executions"] and "try_number" in theirs else []
    return [
        f"{name}: {field} {ours[field]} instead of {theirs[field]}"
        for field in fields
        if ours[field] != theirs.get(field)
    ]


def _flat(states: dict[str, Any]) -> Any:
    for task_id, dates in states.items():
        for date, entry in dates.items():
            for index, each in entry["map"].items() if "map" in entry else [("-1", entry)]:
                yield (task_id, date, index), each
