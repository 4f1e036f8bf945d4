"""What must hold in a simulated world after each step, whatever has happened (the numbers are those of the rules)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from model_database import Change, Row
from players import Coordinator, Worker
from scripts import POOL

from backfill.dag import DAG
from backfill.states import FINISHED, IN_FLIGHT, TRANSITIONS
from backfill.store.claims import Claim

Pair = tuple[str | None, str]


def _pairs(*rules: str) -> set[Pair]:
    return {
        (None if not transition.sources else str(source), str(target))
        for transition in TRANSITIONS
        if transition.rule in rules
        for source in transition.sources or {None}
        for target in transition.targets
    }


_COORDINATORS = _pairs(
    "S3.1",
    "S3.2",
    "S3.3",
    "S3.4",
    "S3.5",
    "S3.6",
    "S3.8",
    "S3.14",
    "S3.15",
    "S3.16",
    "S3.17",
    "S3.18",
    "S3.19",
    "S3.20",
    "S3.21",
    "S3.23",
)
_WORKERS = _pairs("S3.7", "S3.8", "S3.9", "S3.10", "S3.11", "S3.12", "S3.13", "S3.15", "S3.19")


def teardowns(dag: DAG) -> set[str]:
    """Return the ids of the tasks that tidy up whatever happens."""
    return {task.task_id for task in dag.tasks if task.is_teardown}


class Invariants:
    """Looks on. Every violation is an `AssertionError` that says what happened."""

    def __init__(self, world: Any) -> None:
        self._world = world
        #: Task instances whose work is done: a worker wrote their end, and nobody cleared them.
        self._done: dict[int, str] = {}
        #: What was found wrong at a commit.
        self.violations: list[AssertionError] = []

    # -- at each commit -------------------------------------------------------------------------------------------------

    def check_commit(self, writer: str, coordinator: Coordinator | None, changes: list[Change]) -> None:
        if coordinator is not None:
            self._check_lease(coordinator, changes)
        for change in changes:
            if change.table == "ti":
                self._check_transition(writer, change)
                self._check_stop(writer, change)
        self._check_limits()

    def _check_lease(self, coordinator: Coordinator, changes: list[Change]) -> None:
        """S1.4: who lost the lease writes nothing; who takes it takes a free one."""
        world = self._world
        job_id = coordinator.planned.id
        own = (each.before for each in changes if (each.table, each.key) == ("job", job_id))
        before = next(own, world.tables.job[job_id])
        assert before is not None
        if coordinator.epoch is not None:
            assert before.lease_epoch == coordinator.epoch, f"{coordinator.name} writes without the lease: {changes}"
        elif before.lease_holder is not None:
            silent = world.time.now() - before.latest_heartbeat
            assert silent > world.settings.lease_timeout, f"{coordinator.name} takes a lease that has not run out"

    def _check_transition(self, writer: str, change: Change) -> None:
        """Section 3: no other transition exists. Work that is done is not taken back."""
        before, after = change.before, change.after
        assert after is not None, f"{writer} deleted task instance {before}"
        if before is not None and before.state == after.state:
            return
        pair = (before.state if before else None, after.state)
        if writer == "operator":
            self._done.pop(after.id, None)
            return
        allowed = _COORDINATORS if writer.startswith("coordinator") else _WORKERS
        assert pair in allowed, f"{writer} moves {self._world.place(after)} from {pair[0]} to {pair[1]}"
        if writer.startswith("worker") and after.state in FINISHED:
            self._done[after.id] = after.state

    def _check_stop(self, writer: str, change: Change) -> None:
        """S6.8: with `fail_stop` a failure and the end of the rest of its run are one."""
        ti = change.after
        assert ti is not None
        dag = self._world.dag(ti.dag_id)
        has_failed = ti.state == "failed" and (change.before is None or change.before.state != "failed")
        if not (dag.fail_stop and has_failed) or writer == "operator":
            return
        rest = [each for each in self._world.tables.tis_of([ti.dag_run_id]) if each.task_id not in teardowns(dag)]
        going_on = [
            self._world.place(each) for each in rest if each.state not in FINISHED or each.state == "upstream_failed"
        ]
        assert not going_on, f"{self._world.place(ti)} has failed, and its run goes on with {going_on}"

    def _check_limits(self) -> None:
        """S5.1: no observer ever counts more than a limit allows."""
        tables = self._world.tables
        in_flight = [ti for ti in tables.ti.values() if ti.state in IN_FLIGHT]
        slots = Counter[str]()
        for ti in in_flight:
            slots[ti.pool] += ti.pool_slots
        for pool, taken in slots.items():
            assert taken <= tables.pool[pool].slots, f"{taken} slots of {pool} are taken"
        assert slots.keys() <= {"default_pool", POOL}
        for dag in {job.dag.dag_id: job.dag for job in self._world.jobs}.values():
            self._check_limits_of(dag, [ti for ti in in_flight if ti.dag_id == dag.dag_id])

    def _check_limits_of(self, dag: DAG, in_flight: list[Row]) -> None:
        """The limits of a DAG hold for all jobs together."""
        assert len(in_flight) <= dag.max_active_tasks, f"{len(in_flight)} task instances are in flight"
        by_task = Counter(ti.task_id for ti in in_flight)
        for task_id, number in by_task.items():
            most = dag.task_dict[task_id].max_active_tis_per_dag
            assert most is None or number <= most, f"{number} of {task_id} are in flight"
        runs = [run for run in self._world.tables.run.values() if run.dag_id == dag.dag_id]
        running = sum(run.state == "running" for run in runs)
        assert running <= dag.max_active_runs, f"{running} runs are running"

    # -- where user code begins -----------------------------------------------------------------------------------------

    def check_begin(self, worker: Worker, claim: Claim) -> None:
        """S7.6: attempts never overlap. S8.6: what finished does not run again."""
        world = self._world
        for other in world.workers:
            begun = other.begun
            if other is not worker and begun is not None and begun.task_instance_id == claim.task_instance_id:
                by_hand = claim.task_instance_id in world.touched
                assert world.time.seconds >= other.deadline or by_hand, (
                    f"{worker.name} and {other.name} both run {claim.key}"
                )
        done = self._done.get(claim.task_instance_id)
        assert done is None, f"{worker.name} runs {claim.key} again, which had ended as {done}"

    # -- at rest --------------------------------------------------------------------------------------------------------

    def check_all(self) -> None:
        if self.violations:
            raise self.violations[0]
        for coordinator in self._world.coordinators:
            assert coordinator.error is None, f"{coordinator.name} failed: {coordinator.error!r}"
            if coordinator.rests_in_the_loop and not coordinator.turns.ended:
                self._check_buckets(coordinator)

    def _check_buckets(self, coordinator: Coordinator) -> None:
        """Each task instance of the window is in exactly one bucket, the one of its state; the numbers add up (S8.7, S9.5)."""
        job, status = coordinator.job, coordinator.ti_status
        assert job is not None
        assert status is not None
        window = job.course.window
        rows = {window.key(row.id): row for run_id in window.run_ids() for row in window.rows(run_id)}
        buckets = [*map(set, (status.to_run, status.running)), status.succeeded, status.skipped, status.failed]
        buckets += [status.not_ready, status.deadlocked - (status.deadlocked - rows.keys())]
        found = Counter(key for bucket in buckets for key in bucket)
        twice = [key for key, number in found.items() if number > 1]
        assert not twice, f"{twice} are in several buckets"
        expected = {key for key, row in rows.items() if row.state != "removed"}
        assert found.keys() == expected, f"the buckets have {found.keys() ^ expected} too many or too few"
        in_flight = {key for key, row in rows.items() if row.state in IN_FLIGHT}
        assert set(status.running) == in_flight, f"running are {set(status.running)}, in flight {in_flight}"
        planned = coordinator.planned
        if planned.script.shape != "mapped":
            numbers = job.course.numbers(status)
            total = sum(numbers) - numbers.runs_finished
            expected_total = planned.script.days * planned.rows_per_run
            assert total == expected_total, f"{numbers} add up to {total} instead of {expected_total}"


def disagreement(expected: dict[str, Any], found: dict[str, Any]) -> str:
    """Return in words where two ends differ."""
    return "\n".join(
        f"{what}: {expected[what]} without faults, {found[what]} with them"
        for what in ("jobs", "runs", "task instances")
        if expected[what] != found[what]
    )
