"""DAG files as the pages of Airflow show them, run by `backfill run` on real workers: states, XComs, templates, logs, callbacks."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backfill.config import Settings

FOLDER = Path(__file__).parent / "airflow_style"
Backfill = Callable[..., subprocess.CompletedProcess[str]]
Service = Callable[..., AbstractContextManager[Any]]

_ROWS = sa.text("""
select ti.dag_id, ti.task_id, ti.map_index, extract(day from run.logical_date at time zone 'UTC')::int as day, ti.state,
       ti.try_number, ti.error, (select json_object_agg(key, value) from xcom where task_instance_id = ti.id) as xcoms
from task_instance ti join dag_run run on run.id = ti.dag_run_id
order by ti.map_index
""")


class Found:
    """What all jobs left: rows, and what the callbacks noted."""

    def __init__(self, engine: sa.Engine, notes: Path) -> None:
        with engine.connect() as tx:
            self.rows = tx.execute(_ROWS).all()
            runs = tx.execute(sa.text("select dag_id, state from dag_run order by dag_id, logical_date")).all()
        self.runs: dict[str, list[str]] = {}
        for dag_id, state in runs:
            self.runs.setdefault(dag_id, []).append(state)
        self.notes = Counter((notes / "notes").read_text().splitlines())

    def of(self, dag_id: str, task_id: str, day: int = 1) -> list[Any]:
        return [row for row in self.rows if (row.dag_id, row.task_id, row.day) == (dag_id, task_id, day)]

    def states(self, dag_id: str, day: int = 1) -> dict[str, set[str]]:
        """Task ids by their states."""
        found: dict[str, set[str]] = {}
        for row in self.rows:
            if (row.dag_id, row.day) == (dag_id, day):
                found.setdefault(row.state, set()).add(row.task_id)
        return found

    def returned(self, dag_id: str, task_id: str, day: int = 1) -> Any:
        """What a task returned, as a list if it is mapped; None stands for an index without a value."""
        values = [(row.xcoms or {}).get("return_value") for row in self.of(dag_id, task_id, day)]
        return values if self.of(dag_id, task_id, day)[0].map_index >= 0 else values[0]

    def tries(self, dag_id: str) -> dict[str, int]:
        return {row.task_id: row.try_number for row in self.rows if (row.dag_id, row.day) == (dag_id, 1)}


@pytest.fixture
def run_all(
    backfill: Backfill, settings: Settings, engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Found]:
    shutil.copytree(FOLDER, settings.core.dags_folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("NOTES", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_VAR_GREETING", "hello")
    monkeypatch.setenv("AIRFLOW_VAR_NUMBERS", "[1, 2]")
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", "postgresql://user:secret@db.example/sales")

    def run(*flags: str) -> Found:
        several = ("-s", "2024-01-01", "-e", "2024-01-02", "--treat-dag-id-as-regex", "--continue-on-failures")
        ran = backfill("run", ".", *several, "-c", '{"region": "us"}', "-o", "json", *flags, timeout=280)
        assert ran.returncode == 1, ran.stderr
        ends = {report["dag_id"]: report["state"] for report in json.loads(ran.stdout)}
        assert {ends.pop(dag_id) for dag_id in ("context", "more_mapping", "native")} == {"success"}, ran.stderr
        assert set(ends.values()) == {"failed"}
        return Found(engine, tmp_path)

    return run


@pytest.mark.timeout(300)  # ten jobs, one after the other
def test_dag_files_in_the_style_of_airflow_do_on_celery_workers_what_they_say(
    run_all: Callable[..., Found], settings: Settings, service: Service
) -> None:
    with service("worker", "-c", "2"):  # one for all of the jobs
        found = run_all()
    check(found, settings)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_dag_files_in_the_style_of_airflow_do_in_local_processes_what_they_say(
    run_all: Callable[..., Found], settings: Settings
) -> None:
    check(run_all("--local"), settings)


def check(found: Found, settings: Settings) -> None:
    check_mapping(found)
    check_more_mapping(found)
    check_choices(found)
    check_setups(found)
    check_context(found)
    check_time(found)
    check_callbacks(found)
    check_logs(settings)


def check_mapping(found: Found) -> None:
    returned = {row.task_id: found.returned("mapping", row.task_id, 2) for row in found.rows if row.dag_id == "mapping"}
    assert returned == {
        "numbers": [1, 2, 3],
        "words": {"one": "eins", "two": "zwei"},
        "lists": {"upper": ["A", "B"], "lower": ["a"]},
        "nothing_at_all": [],
        "add": [11, 12, 13],
        "total": 36,
        "product": [2, 3, 4, 3, 4, 5],
        "items": [["one", "eins"], ["two", "zwei"]],
        "zipped": [[1, "A"], [2, "B"], [3, 1]],
        "over_nothing": None,
        "never": None,
        "doubled_of": [2, 4, None],
        "by_kwargs": [3, "ab"],
        "chained": [1, 2, 3, 11, 12, 13],
        "shell": ["hello 2024-01-02", "1"],
        "classic": [4, 9],
        "work_on.fetch": [100, 200, 300],
        "work_on.store": ["0:100", "1:200", "2:300"],
        "all_stored": ["0:100", "1:200", "2:300"],
    }
    assert [row.state for row in found.of("mapping", "doubled_of")] == ["success", "success", "failed"]
    assert found.states("mapping")["skipped"] == {"over_nothing", "never"}
    assert found.runs["mapping"] == ["failed", "failed"]


def check_more_mapping(found: Found) -> None:
    states = {
        task_id: "".join(row.state[:2] for row in found.of("more_mapping", task_id))
        for task_id in ("keep", "sized.big")
    }
    assert states == {"keep": "sksusksu", "sized.big": "sksu"}
    assert found.returned("more_mapping", "seen") == [[2, 4], [2, 4], [2], 4]
    assert found.returned("more_mapping", "by_xcom") == [10, 20]
    assert found.returned("more_mapping", "sized.join") == [[0, "a"], [1, "b"]]
    assert found.returned("more_mapping", "shouted") == [["DAY 2024-01-01", "!"], ["B", "!"]]
    assert found.returned("native", "kinds") == [[1, 2], "datetime"]


def check_choices(found: Found) -> None:
    always = {
        "success": {"weekday", "is_first", "latest", "join", "all_done", "always", "one_done", "one_failed"},
        "skipped": {
            "only_latest",
            "only_latest_too",
            "skips",
            "shell_skips",
            "never_asked",
            "all_failed",
            "all_skipped",
        }
        | {"none_skipped"},
        "failed": {"fails"},
        "upstream_failed": {"all_success", "none_failed", "none_failed_min_one_success", "one_success"},
    }
    first = {"success": {"left", "below_1", "below_2", "cut_off"}, "skipped": {"right", "group.a", "group.b"}}
    second = {
        "success": {"right", "group.a", "group.b"},
        "skipped": {"left", "below_1", "below_2", "cut_off"},
    }
    for day, own in ((1, first), (2, second)):
        assert found.states("choices", day) == {state: always[state] | own.get(state, set()) for state in always}
    assert found.tries("choices")["fails"] == 1
    assert found.returned("choices", "weekday", 2) == ["right", "group"]


def check_setups(found: Found) -> None:
    assert found.states("cluster") == {
        "success": {"create", "delete"},
        "failed": {"work"},
        "upstream_failed": {"report"},
    }
    assert found.returned("cluster", "delete") == "deleted cluster-1"


def check_context(found: Found) -> None:
    (row,) = found.of("context", "rendered", 2)
    first, *others = row.xcoms["return_value"].splitlines()
    lines = dict(line.split("=", 1) for line in others)
    run_id = "backfill__2024-01-02T00:00:00+00:00"
    assert first == (
        "ds=2024-01-02 ds_nodash=20240102 ts=2024-01-02T00:00:00+00:00 ts_nodash=20240102T000000 "
        "with_tz=20240102T000000+0000"
    )
    assert lines == {
        "logical": "2024-01-02T00:00:00+00:00 execution=2024-01-02T00:00:00+00:00",
        "interval": "2024-01-02/2024-01-03",
        "run": f"{run_id} {run_id} context rendered 1 -1",
        "key": "context__rendered__20240102 params=us conf=us test=False",
        "prev": "2024-01-01 20240101 next=2024-01-03 20240103",
        "around": "2024-01-01 20240101 2024-01-03 20240103",
        "dates": "2024-01-01 2024-01-03",
        "success": "2024-01-01 2024-01-01 2024-01-02",
        "started": "True True",
        "var": "hello 2 none conn=db.example",
        "macros": "2024-01-07 02.01.2024 mine=HI cba",
        "index": "None count=None [] [] 0",
    }
    assert "success=None None None" in found.returned("context", "rendered", 1)
    assert found.returned("context", "in_context", 2) == (
        ["us", 5, {"region": "us"}, "context", "in_context", "2024-01-02T00:00:00+00:00", "1", run_id, "backfill"]
    )
    assert found.returned("context", "puller", 2) == [
        {"ds": "2024-01-02", "same": True},
        [{"first": 1, "second": [2]}, ["2024-01-02", "2024-01-03"]],
        [2],
        None,
    ]
    assert found.of("context", "several")[0].xcoms == {
        "return_value": {"first": 1, "second": [2]},
        "first": 1,
        "second": [2],
    }
    assert found.returned("context", "last_line") == "us mars"
    assert found.returned("context", "from_file") == "script of 2024-01-01"
    assert found.of("context", "silent")[0].xcoms is None
    assert found.runs["context"] == ["success", "success"]


def check_time(found: Found) -> None:
    assert found.states("sensing") == {
        "success": {"pokes", "comes_back", "long_over", "at_a_time", "a_file", "decorated", "after_it"},
        "failed": {"too_late"},
        "skipped": {"does_not_matter"},
    }
    assert set(found.tries("sensing").values()) == {1}
    values = [found.returned("sensing", task_id) for task_id in ("pokes", "comes_back", "decorated")]
    assert values == ["pokes_2024-01-01", "comes_back_2024-01-01", "there"]
    assert found.states("trouble") == {
        "success": {"third_time_lucky", "comes_back", "exits"},
        "failed": {"too_slow", "backs_off", "exits_badly", "shell"},
    }
    used_up = {"third_time_lucky": 3, "too_slow": 2, "backs_off": 2}
    assert found.tries("trouble") == {"comes_back": 1, "exits": 1, "exits_badly": 1, "shell": 1, **used_up}
    assert found.states("stopped") == {"failed": {"breaks"}, "skipped": {"never_comes"}}
    assert found.states("late") == {"skipped": {"sleeps", "waits_in_vain"}}
    assert found.runs["stopped"] == ["success", "success"]  # its only leaf was skipped
    assert found.runs["late"] == ["failed", "failed"]


def check_callbacks(found: Found) -> None:
    expected = {
        **{f"{when} well 1 NoneType": 2 for when in ("execute", "success")},
        **{f"execute badly {number} NoneType": 2 for number in (1, 2, 3)},
        **{f"retry badly {number} KeyError": 2 for number in (1, 2)},
        **dict.fromkeys(
            ("failure badly 3 KeyError", "failure again badly 3 KeyError", "execute not_today 1 NoneType"), 2
        ),
        **dict.fromkeys(("skipped not_today 1 SkipTask", "success not_today 1 SkipTask"), 2),
        **{f"run success backfill__2024-01-0{day}T00:00:00+00:00 success": 1 for day in (1, 2)},
        **{f"run failure backfill__2024-01-0{day}T00:00:00+00:00 task_failure": 1 for day in (1, 2)},
    }
    assert found.notes == expected


def check_logs(settings: Settings) -> None:
    logs = {path.relative_to(settings.core.home): path.read_text() for path in settings.core.home.rglob("*.log")}
    of_well = [text for path, text in logs.items() if "well" in str(path)]
    assert len(of_well) == 2
    assert all("a line of the log" in text for text in of_well)
    of_lucky = [path for path in logs if "third_time_lucky" in str(path)]
    assert len(of_lucky) == 6  # one for each try
