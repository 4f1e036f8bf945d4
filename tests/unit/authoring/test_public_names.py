from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

PACKAGES = ["backfill", "backfill.dag", "backfill.operators", "backfill.sensors", "backfill.timetables"]


@pytest.mark.parametrize("name", PACKAGES)
def test_the_public_names_are_sorted_and_exist(name: str) -> None:
    package = importlib.import_module(name)
    assert sorted(package.__all__) == sorted(set(package.__all__))
    assert all(hasattr(package, member) for member in package.__all__)


#: By package.
OF_THE_INTERFACE = {
    "backfill": (
        "DAG",
        "Param",
        "TaskGroup",
        "TriggerRule",
        "XComArg",
        "chain",
        "cross_downstream",
        "dag",
        "get_current_context",
        "task",
        "task_group",
    ),
    "backfill.operators": (
        "BaseBranchOperator",
        "BaseOperator",
        "BashOperator",
        "BranchPythonOperator",
        "EmptyOperator",
        "LatestOnlyOperator",
        "PythonOperator",
        "ShortCircuitOperator",
        "SubDagOperator",
    ),
    "backfill.sensors": (
        "BaseSensorOperator",
        "DateTimeSensor",
        "FileSensor",
        "PokeReturnValue",
        "PythonSensor",
        "TimeDeltaSensor",
    ),
}


@pytest.mark.parametrize("package", OF_THE_INTERFACE)
def test_what_the_interface_names_can_be_imported(package: str) -> None:
    module = importlib.import_module(package)
    assert [name for name in OF_THE_INTERFACE[package] if not hasattr(module, name)] == []


HEAVY = "sqlalchemy celery kombu redis psycopg2 pandas numpy jinja2 jsonschema cloudpickle rich flower"


def test_writing_a_dag_loads_nothing_heavy() -> None:
    code = (
        "import sys, backfill, backfill.operators, backfill.sensors, backfill.timetables, backfill.dag.loader\n"
        f"print([name for name in {HEAVY.split()!r} if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_the_name_dag_is_both_the_decorator_and_the_package() -> None:
    from backfill import dag
    from backfill.dag import DAG
    from backfill.dag.loader import find_dag

    @dag
    def made() -> None: ...

    assert isinstance(made(), DAG)
    assert callable(find_dag)
