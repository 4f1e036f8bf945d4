from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from backfill import DAG, task
from backfill.dag.freeze import FrozenDag, freeze, thaw
from backfill.dag.loader import load_file
from backfill.exceptions import FrozenDagError
from backfill.operators import BashOperator, PythonOperator

KEY = b"a key of the coordinator and the workers"

EVERYTHING = """
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import NamedTuple
from zoneinfo import ZoneInfo
import json as renamed

from backfill import DAG, Label, Param, TaskGroup, dag, task, task_group, setup, teardown
from backfill.operators import *
from backfill.sensors import *
import beside
from beside import Doubling, shout

LIMIT = 40

class Colour(Enum):
    RED = "red"

class Pair(NamedTuple):
    left: int
    right: int

class Adding(BaseOperator):
    template_fields = ("text",)

    def __init__(self, *, text: str, **kwargs):
        super().__init__(**kwargs)
        self.text = text

    def execute(self, context):
        return self.text + Colour.RED.value + str(Pair(1, 2).right)

def told(context):
    return LIMIT

with DAG(
    "everything",
    schedule="30 2 * * *",
    start_date=datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")),
    params={"n": Param(5, type="integer")},
    user_defined_macros={"shout": shout},
    user_defined_filters={"twice": lambda x: x * 2},
    default_args={"retries": 2, "on_failure_callback": told},
    dagrun_timeout=timedelta(hours=1),
    on_success_callback=[told, lambda context: None],
) as everything:
    start = EmptyOperator(task_id="start")
    adding = Adding(task_id="adding", text="{{ ds }}")
    doubling = Doubling(task_id="doubling", text="x")
    bash = BashOperator(task_id="bash", bash_command="script.sh", env={"a": "{{ shout('b') | twice }}"})
    start >> Label("x") >> [adding, doubling, bash]

    @task
    def limited(n: int) -> dict[str, int]:
        return {"n": min(n, LIMIT), "beside": beside.NUMBER, "json": renamed.loads("1")}

    @task.branch
    def choose():
        return "group"

    @task
    def each(x, y):
        return x, y

    with TaskGroup("group") as group:
        value = limited(100)
        each.partial(y=value["n"]).expand(x=[1, 2])
        each.expand(x=value.map(lambda x: x), y=[1])
    choose() >> group

    @task_group
    def section(x):
        each(x, 1)

    section.expand(x=[1, 2, 3])

    @setup
    def create(): ...

    @teardown
    def drop(): ...

    with create() >> drop():
        each(1, 2)
    PythonSensor(task_id="sensor", python_callable=lambda: True)
    ShortCircuitOperator(task_id="circuit", python_callable=told)
    LatestOnlyOperator(task_id="latest")
    child = DAG("everything.sub")
    EmptyOperator(task_id="inner", dag=child)
    SubDagOperator(task_id="sub", subdag=child)
"""

BESIDE = """
from backfill.operators import BaseOperator

NUMBER = 7

def shout(text):
    return text.upper()

class Doubling(BaseOperator):
    def __init__(self, *, text, **kwargs):
        super().__init__(**kwargs)
        self.text = text

    def execute(self, context):
        return shout(self.text) * 2
"""

THAW = """
import pickle, sys
from backfill.dag.freeze import thaw
with open(sys.argv[1], "rb") as file:
    frozen = pickle.load(file)
dag = thaw(frozen, {key!r})
dag.validate()

class TI:
    map_index = 0
    def xcom_pull(self, task_ids, key="return_value", map_indexes=None):
        return 40 if key == "n" else [5, 6]

def run(task_id, map_index=-1):
    context = {{"ti": TI(), "ds": "2024-01-01", "task": dag.get_task(task_id), "params": {{}}}}
    operator = dag.get_task(task_id).unmap(map_index, context)
    operator.render_template_fields(context)
    return operator.execute(context)

print(dag.dag_id, len(dag.tasks), dag.timezone, dag.params["n"], dag.subdags[0].task_ids)
print(run("adding"), run("doubling"), run("bash"), run("group.limited"), run("group.each", 1), run("group.each__1", 1))
print(run("choose"), run("section.each"), dag.on_success_callback[0]({{}}), dag.get_task("adding").on_failure_callback[0]({{}}))
"""


@pytest.fixture
def everything(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "everything.py").write_text(EVERYTHING)
    (folder / "beside.py").write_text(BESIDE)
    (folder / "script.sh").write_text("{% include 'inner.sh' %}\necho $a")
    (folder / "inner.sh").write_text("echo {{ ds }}")
    path = list(sys.path)
    yield folder / "everything.py"
    sys.path[:] = path
    sys.modules.pop("beside", None)


def test_everything_runs_in_another_process_without_the_dag_file(everything: Path, tmp_path: Path) -> None:
    frozen = freeze(load_file(everything)[0], KEY)
    everything.parent.rename(tmp_path / "gone")
    (tmp_path / "frozen").write_bytes(pickle.dumps(frozen))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shown = subprocess.run(
        [sys.executable, "-c", THAW.format(key=KEY), str(tmp_path / "frozen")],
        check=False,
        cwd=elsewhere,
        capture_output=True,
        text=True,
    )
    assert shown.stderr == ""
    assert shown.stdout.splitlines() == [
        "everything 16 Europe/Berlin 5 ['inner']",
        "2024-01-01red2 XX BB {'n': 40, 'beside': 7, 'json': 1} (2, 40) (6, 1)",
        "group (1, 1) 40 40",
    ]


FREEZE = """
import sys
from pathlib import Path
from backfill.dag.freeze import freeze
from backfill.dag.loader import load_file
print(freeze(load_file(Path(sys.argv[1]))[0], b"key").hash)
"""


def test_the_same_dag_is_frozen_to_the_same_bytes_in_every_process(everything: Path) -> None:
    hashes = {
        subprocess.run(
            [sys.executable, "-c", FREEZE, str(everything)],
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1


def test_freezing_twice_in_one_process_gives_the_same_too(everything: Path) -> None:
    first = load_file(everything)[0]
    assert freeze(first, KEY) == freeze(first, KEY)
    assert freeze(load_file(everything)[0], KEY).hash == freeze(first, KEY).hash


def test_freezing_leaves_the_dag_as_it_was(everything: Path) -> None:
    dag = load_file(everything)[0]
    freeze(dag, KEY)
    assert dag.shipped_templates == {}
    assert dag.get_task("start").downstream_task_ids == {"adding", "doubling", "bash"}


def test_two_versions_of_a_dag_live_side_by_side_in_one_process(tmp_path: Path) -> None:
    frozen = []
    for number in (1, 2):
        (tmp_path / "d.py").write_text(
            dedent(f"""
            from backfill import DAG
            from backfill.operators import BaseOperator
            class Telling(BaseOperator):
                def execute(self, context):
                    return {number}
            with DAG("d"):
                Telling(task_id="t")
            """)
        )
        frozen.append(freeze(load_file(tmp_path / "d.py")[0], KEY))
    dags = [thaw(each, KEY) for each in frozen]
    assert [dag.get_task("t").unmap(-1, {}).execute({}) for dag in dags] == [1, 2]
    assert frozen[0].hash != frozen[1].hash


def in_memory() -> DAG:
    with DAG("memory") as dag:
        PythonOperator(task_id="t", python_callable=lambda: KEY)
    return dag


def test_a_dag_built_in_memory_is_frozen_with_the_code_of_its_module() -> None:
    payload = freeze(in_memory(), KEY).payload
    assert KEY in payload


def test_a_dag_built_in_a_function_can_use_what_is_around_it(run: Any) -> None:
    number = 5
    with DAG("memory") as dag:

        @task
        def told() -> int:
            return number

        told()
    assert run(thaw(freeze(dag, KEY), KEY).get_task("told")) == 5


def test_a_rendered_dag_can_be_frozen(run: Any) -> None:
    with DAG("d") as dag:
        BashOperator(task_id="t", bash_command="echo {{ ds }}")
    run(dag.get_task("t"))
    assert run(thaw(freeze(dag, KEY), KEY).get_task("t"), ds="x") == "x"


def frozen_dag() -> FrozenDag:
    return freeze(in_memory(), KEY)


class Exploding:
    def __reduce__(self) -> Any:
        return exec, ("raise AssertionError('was unpickled')",)


@pytest.mark.parametrize(
    "change",
    [
        {"payload": pickle.dumps(Exploding())},
        {"signature": "0" * 64},
        {"signature": "ü"},
        {"dag_id": "other"},
        {"python_version": "2.7"},
    ],
)
def test_what_was_tampered_with_is_refused_before_it_is_unpickled(change: dict[str, Any]) -> None:
    with pytest.raises(FrozenDagError, match=r"is not signed with this worker's core.secret_key"):
        thaw(replace(frozen_dag(), **change), KEY)


def test_another_key_is_refused() -> None:
    with pytest.raises(FrozenDagError, match="is not signed"):
        thaw(frozen_dag(), b"another key")


def test_another_python_is_refused_before_anything_is_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = frozen_dag()
    module = sys.modules["backfill.dag.freeze"]
    monkeypatch.setattr(module, "_python_version", lambda: "3.99")
    monkeypatch.setattr(module.pickle, "loads", None)
    with pytest.raises(FrozenDagError, match=r"was frozen by Python 3.11 and this worker runs 3.99"):
        thaw(frozen, KEY)


def test_a_module_that_is_missing_here_is_named() -> None:
    frozen = frozen_dag()
    broken = freeze(in_memory(), KEY)
    payload = b"cno_such_module\nthing\n."
    import hashlib
    import hmac

    signature = hmac.new(KEY, f"memory\0{frozen.python_version}\0".encode() + payload, hashlib.sha256).hexdigest()
    with pytest.raises(
        FrozenDagError, match=r"cannot be loaded here .*No module named 'no_such_module'.*install on the workers"
    ):
        thaw(replace(broken, payload=payload, signature=signature), KEY)


def test_what_cannot_be_pickled_is_named() -> None:
    lock = threading.Lock()
    with DAG("d") as dag:
        PythonOperator(task_id="t", python_callable=lambda: lock)
    with pytest.raises(FrozenDagError, match=r"The DAG 'd' cannot be shipped .*cannot pickle '_thread.lock' object"):
        freeze(dag, KEY)
