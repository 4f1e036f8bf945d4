"""Why task instances wait, told with `-v`."""

from datetime import UTC, datetime

import pytest

from backfill import DAG
from backfill.engine.graph import Graph
from backfill.engine.limits import Occupancy
from backfill.engine.window import Window
from backfill.facts import RunFacts, TaskInstanceFacts
from backfill.jobs.progress import Throttle
from backfill.jobs.waits import Waits
from backfill.operators import PythonOperator

DAY = datetime(2024, 1, 1, tzinfo=UTC)
PLENTY = Occupancy(pool_sizes={"default_pool": 9, "small": 9})
FULL = Occupancy(pool_sizes={"default_pool": 9, "small": 0})


class Scene:
    """One run of `pull >> load` with a mapped `part` in a pool of its own, and who tells of it at each look."""

    def __init__(self) -> None:
        with DAG("sales", schedule=None) as dag:
            pull = PythonOperator(task_id="pull", python_callable=print)
            pull >> PythonOperator(task_id="load", python_callable=print)
            PythonOperator.partial(task_id="part", python_callable=print, pool="small").expand(op_args=[[1], [2]])
        graph = Graph.compile(dag)
        self.window = Window(graph)
        places = [(task_id, index) for task_id in graph.task_ids for index in graph.literal_indexes(task_id)]
        self.rows = {
            (task_id, index): TaskInstanceFacts(number, 1, task_id, index, "none", 0, 0, False, None, None, 0, None)
            for number, (task_id, index) in enumerate(places, start=1)
        }
        run = RunFacts(1, "sales", "r", DAY, DAY, DAY, "running", "backfill", {}, DAY, 0)
        self.window.admit(run, self.rows.values(), first=True, previous=None)
        self.time = 0.0
        self._waits = Waits(self.window, None, Throttle(lambda: self.time))

    def set(self, task_id: str, state: str, index: int = -1) -> None:
        row = self.rows[task_id, index]._replace(state=state)
        self.window.take_in([row])

    def look(self, occupancy: Occupancy = PLENTY, *, after: float = 1.0) -> list[str]:
        self.time += after
        self.window.decide(DAY)
        return self._waits.news(DAY, occupancy)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_each_task_that_waits_is_told_once_a_mapped_one_by_its_first_index(scene: Scene) -> None:
    assert sorted(scene.look(FULL)) == [
        "sales.load r: its trigger rule all_success waits for pull of 2024-01-01T00:00:00+00:00 (none)",
        "sales.part[0] r: pool 'small' has no room for it",
        "sales.pull r: it is ready",
    ]
    assert scene.look(FULL) == []


def test_the_states_that_those_waited_for_go_through_are_no_news(scene: Scene) -> None:
    scene.look()
    scene.set("pull", "running")
    assert scene.look() == []


def test_another_reason_is_news(scene: Scene) -> None:
    scene.look()
    assert scene.look(FULL) == ["sales.part[0] r: pool 'small' has no room for it"]
    scene.set("pull", "success")
    assert scene.look(FULL) == ["sales.load r: it is ready"]


def test_looks_in_quick_succession_are_passed_over(scene: Scene) -> None:
    scene.look()
    assert scene.look(FULL, after=0.5) == []
    assert scene.look(FULL, after=0.5) == ["sales.part[0] r: pool 'small' has no room for it"]
