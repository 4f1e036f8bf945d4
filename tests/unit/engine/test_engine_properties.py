"""Random DAGs, ends, limits, orders of events and edits: what must hold for all of them (S0.1, S0.3, S4, S5, S9.3, S9.5)."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from engine_reference import Reference, blocked
from engine_replay import Replay, replay
from engine_scenarios import random_scenario
from hypothesis import HealthCheck, given, settings, strategies as st

from backfill.engine.limits import Occupancy
from backfill.engine.window import Window
from backfill.facts import TaskInstanceFacts
from backfill.states import FINISHED, IN_FLIGHT, UNFINISHED, TaskInstanceState

S = TaskInstanceState

#: Runs are small, and many.
THOROUGH = settings(
    deadline=None,
    database=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
SEED = st.integers(0, 2**32)
UNLIMITED = {"default_pool": -1, "p": -1, "q": -1}


def scenario_of(seed: int) -> dict[str, Any]:
    """Return a random scenario; a seed spreads better than what Hypothesis draws by itself."""
    rng = random.Random(seed)
    return random_scenario(rng, tasks=rng.randint(1, 9), dates=rng.randint(1, 3))


SCENARIOS = SEED.map(scenario_of)


#: What an operator may set a task instance to.
BY_HAND = [S.NONE, S.NONE, S.NONE, S.SUCCESS, S.SKIPPED, S.FAILED, S.UPSTREAM_FAILED, S.UP_FOR_RETRY]


class Watched(Replay):
    """A replay that is checked after each step."""

    def check_round(self) -> None:
        super().check_round()
        self.check_decisions()
        self.check_counts()
        self.check_against_a_fresh_window()

    def check_decisions(self) -> None:
        """Every idle task instance is where a naive reading of S4.1 puts it."""
        board = self.window._board
        references = [self.reference(run) for run in self.active.values()]
        for reference in references:
            for row in reference.idle():
                place = board.places[row.id]
                found = "ready" if place in board.ready else "due" if place in board.due else "wait"
                assert found == reference.judge(row), row
                self.check_index(reference, row)
        assert {each.ti_id for each in self.window.blocked()} == blocked(references, self.pools)

    def check_index(self, reference: Reference, row: TaskInstanceFacts) -> None:
        """An idle index of a mapped task is within the length that its sources give, and so are all others there."""
        sources = [self.rows.of_run(row.dag_run_id, source) for source in reference.sources(row.task_id)]
        known = all(each.state == S.SUCCESS for rows in sources for each in rows)
        if row.map_index >= 0 and known and reference.is_dynamic(row.task_id):
            length = reference.length(row.task_id)
            assert length is None or {each.map_index for each in reference.all_of(row.task_id)} >= set(range(length))
            assert length is None or row.map_index < length

    def reference(self, run: Any) -> Reference:
        date = run.facts.logical_date
        return Reference(
            dag=self.dag,
            chosen=self.chosen,
            run=run.facts,
            rows=self.rows.of_run(run.facts.id),
            previous=self.previous(date),
            is_first=date == min(self.dates),
            flags=self.flags,
            now=self.now,
            length=lambda task_id: self.graph.mapping_length(
                task_id, self._lengths(run.facts.id, self.graph.mapping_sources(task_id))
            ),
        )

    def check_counts(self) -> None:
        counts = self.window.counts()
        states = Counter(row.state for row in self.active_rows() if row.state != S.REMOVED)
        assert counts.waiting == sum(states[state] for state in UNFINISHED - IN_FLIGHT)
        assert counts.running == sum(states[state] for state in IN_FLIGHT)
        assert counts.succeeded == states[S.SUCCESS]
        assert counts.failed == states[S.FAILED] + states[S.UPSTREAM_FAILED]
        assert counts.upstream_failed == states[S.UPSTREAM_FAILED]
        assert counts.skipped == states[S.SKIPPED]
        assert counts.total == sum(states.values())

    def active_rows(self) -> list[TaskInstanceFacts]:
        return [
            r for r in self.rows.task_instances.values() if r.dag_run_id in self.active and r.task_id in self.chosen
        ]

    def check_against_a_fresh_window(self) -> None:
        """What was kept up step by step equals what the rows say to a window that knows nothing else (S0.1)."""
        fresh = Window(self.graph)
        for run in self.active.values():
            date = run.facts.logical_date
            rows = self.rows.of_run(run.facts.id)
            self.rng.shuffle(rows)
            fresh.admit(run.facts, rows, first=date == min(self.dates), previous=self.previous(date))
        decisions = fresh.decide(self.now)
        assert not decisions.settle
        assert not decisions.unschedule
        for dag_run_id, task_id in decisions.expand:
            sources = self._lengths(dag_run_id, self.graph.mapping_sources(task_id))
            fresh.set_length(dag_run_id, task_id, self.graph.mapping_length(task_id, sources))
        assert not fresh.decide(self.now)
        assert view(fresh) == view(self.window)

    def disturb(self) -> None:
        """Set a row by hand, or clear it (S3.22, S3.25), as it may happen at any time."""
        rows = [row for row in self.active_rows() if row.state != S.REMOVED or row.map_index == -1]
        if not rows:
            return
        row = self.rng.choice(rows)
        state = self.rng.choice(BY_HAND + ([S.REMOVED] if row.map_index == -1 else []))
        retries = self.dag.task_dict[row.task_id].retries
        self.rows.change(
            row.id,
            state=state,
            try_open=False,
            attempt_id=None,
            next_attempt_at=self.now if state == S.UP_FOR_RETRY else None,
            max_tries=row.try_number + retries,
        )
        if state == S.SUCCESS:
            self.rows.values.setdefault(row.id, [1])
        self.window.take_in([self.rows.task_instances[row.id]])


class Disturbed(Watched):
    """A replay in which somebody edits rows every now and then, up to `edits` times."""

    edits = 12

    def _tick(self) -> bool:
        if self.edits and self.rng.random() < 0.4:
            self.edits -= 1
            self._admit()
            self.disturb()
            return True
        return super()._tick()


class Starts(Watched):
    """A replay in which every start is held against a naive reading of the rules, and against every limit."""

    def check_round(self) -> None:
        Replay.check_round(self)

    def _dispatch(self) -> None:
        references = [self.reference(run) for run in self.active.values()]
        allowed = {row.id for each in references for row in each.idle() if each.judge(row) == "ready"}
        before = self.in_flight()
        super()._dispatch()
        assert self.in_flight() - before <= allowed

    def in_flight(self) -> set[int]:
        return {row.id for row in self.rows.task_instances.values() if row.state in IN_FLIGHT}


def view(window: Window) -> dict[str, Any]:
    """Return all that a window says of itself."""
    unlimited = Occupancy(pool_sizes=UNLIMITED)
    ready = list(window._ids(window._board.ready))
    return {
        "ready": sorted(ready),
        "first picked": window.pick(unlimited)[:1],
        "due": window.next_due(),
        "counts": window.counts(),
        "blocked": [(each.ti_id, each.reason) for each in window.blocked()],
        "stuck": window.stuck_runs(),
        "finished": sorted(window.finished_runs(), key=lambda outcome: outcome.dag_run_id),
        "rows": sorted(row for run in window._board.runs.values() for row in run.rows()),
        "awaiting": sorted(window.awaiting_previous()),
        "held": sorted(window.held_by_previous()),
        "idle": window.idle(),
    }


def holds(job: Replay) -> bool:
    """Run `job`, and return whether what its class asserts of each round was asserted of all its rounds; one that is refused has none."""
    end = job.run()
    was_refused = end["job"] == "refused" or "error" in end
    return was_refused or job.rounds_checked > 0


@THOROUGH
@given(SCENARIOS, SEED)
def test_what_is_kept_up_step_by_step_equals_a_naive_reading_of_the_rules(scenario: dict[str, Any], seed: int) -> None:
    assert holds(Watched(scenario, random.Random(seed)))


@THOROUGH
@given(SCENARIOS, SEED)
def test_edits_from_outside_take_effect_at_the_next_pass(scenario: dict[str, Any], seed: int) -> None:
    assert holds(Disturbed(scenario, random.Random(seed)))


@THOROUGH
@given(SCENARIOS, SEED, SEED)
def test_final_states_do_not_depend_on_the_order_of_events(scenario: dict[str, Any], one: int, other: int) -> None:
    first, second = replay(scenario, one), replay(scenario, other)
    assert first["task_instances"] == second["task_instances"]
    assert first["dag_runs"] == second["dag_runs"]
    assert first["job"] == second["job"]


@THOROUGH
@given(SCENARIOS, SEED)
def test_no_limit_is_ever_exceeded(scenario: dict[str, Any], seed: int) -> None:
    assert holds(Replay(scenario, random.Random(seed)))


@THOROUGH
@given(SCENARIOS, SEED)
def test_no_task_starts_before_its_upstreams_allow_it(scenario: dict[str, Any], seed: int) -> None:
    assert holds(Starts(scenario, random.Random(seed)))


@THOROUGH
@given(SCENARIOS, SEED)
def test_every_task_instance_ends_or_is_blocked(scenario: dict[str, Any], seed: int) -> None:
    scenario["flags"]["continue_on_failures"] = False
    job = Replay(scenario, random.Random(seed))
    job.run()
    blocked = {each.ti_id for each in job.window.blocked()}
    for row in job.rows.task_instances.values():
        assert row.state in FINISHED or row.id in blocked
    assert job.window.idle()


@pytest.mark.parametrize("seed", range(3))
def test_a_replay_of_the_same_seed_is_the_same(seed: int) -> None:
    scenario = {
        "dag": {"tasks": [{"task_id": f"t{i}", "retries": 1} for i in range(5)]},
        "start_date": "2024-01-01",
        "end_date": "2024-01-03",
        "outcomes": {"t1": {"*": ["failed", "skipped"]}, "t2": {"*": "failed"}},
    }
    assert replay(scenario, seed) == replay(scenario, seed)
