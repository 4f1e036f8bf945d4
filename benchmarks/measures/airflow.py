"""The same no-op tasks on Airflow: `airflow dags backfill` with the CeleryExecutor.

Only where `AIRFLOW_BIN` names the `airflow` program of an environment of its own, with Airflow 2 and its extras celery, postgres and
redis; else the peer is reported as missing. Airflow gets a database of its own on the same PostgreSQL, queues on the same Valkey and one
`airflow celery worker -c 2`; its DAG is the same ten tasks, with fewer dates, as it is slower. Time is from the first `queued_dttm` to
the last `end_date` of its task instances. Ours is measured in the same rounds, in the way and the size of the row above.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from sqlalchemy import make_url, text

from backfill.store.database import create_engine
from benchmarks import rows
from benchmarks.figures import ratios
from benchmarks.ground import FIRST, ROOT, Ground
from benchmarks.measurement import Found, Mode, at_least, middle, missing
from benchmarks.processes import call, running, wait_for

KEY = "airflow"
TITLE = "No-op tasks per second against Airflow"
LIMITS = {Mode.FULL: 1800, Mode.QUICK: 120}

TASKS = 10
CHILDREN = 2
_OUR_DATES = {Mode.FULL: 1000, Mode.QUICK: 100}
_THEIR_DATES = {Mode.FULL: 5, Mode.QUICK: 1}
_ROUNDS = {Mode.FULL: 5, Mode.QUICK: 1}
_GOAL = at_least(600)
_NAME = "against Airflow's `dags backfill`"
#: Number of the broker's database that Airflow uses.
_QUEUES = 4

_SPAN = """
select count(*), extract(epoch from max(end_date) - min(queued_dttm)) from task_instance
where state = 'success' and run_id between :first and :last
"""
_RUN_ID = "backfill__{:%Y-%m-%d}T00:00:00+00:00"


def measure(ground: Ground, mode: Mode) -> Found:
    """Return the ratio to Airflow, or say that it is missing; BENCH_DATES changes the number of our dates."""
    program = os.environ.get("AIRFLOW_BIN", "")
    dates = int(os.environ.get("BENCH_DATES", _OUR_DATES[mode]))
    sizes = {"tasks": TASKS, "dates": dates, "Airflow's dates": _THEIR_DATES[mode], "rounds": _ROUNDS[mode]}
    if not program:
        why = "Airflow is not installed here: set AIRFLOW_BIN to the `airflow` program of an environment of its own"
        return Found(figures=[missing(_NAME, "×", why, goal=_GOAL)], sizes=sizes)
    ours, theirs = [], []
    count = TASKS * dates
    with ground.worker(CHILDREN), _Airflow(ground, Path(program)).working() as airflow:
        ground.run("tasks", 1, "--workers", "0")
        for _ in range(_ROUNDS[mode]):
            run = ground.run("tasks", dates, "--workers", "0")
            ours.append(count / rows.seconds_from_dispatch(ground, run.dag_id, count))
            theirs.append(airflow.tasks_per_second(_THEIR_DATES[mode]))
    return Found(
        figures=[
            middle(_NAME, ratios(ours, theirs), "×", goal=_GOAL),
            middle("task instances per second", ours, "1/s"),
            middle("Airflow, task instances per second", theirs, "1/s"),
        ],
        sizes=sizes | {"Airflow": airflow.version()},
    )


class _Airflow:
    """An installation of Airflow with a home, a database and a worker of its own."""

    def __init__(self, ground: Ground, program: Path) -> None:
        self._ground = ground
        self._program = str(program)
        self._home = ground.home / "airflow"
        self._home.mkdir(exist_ok=True)
        self._url = make_url(ground.database_url).set(database="airflow")
        self._rounds = 0

    @contextmanager
    def working(self) -> Iterator[_Airflow]:
        """Make the database, and have a worker listen while the block lasts."""
        with self._ground.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as server:
            server.execute(text("drop database if exists airflow with (force)"))
            server.execute(text("create database airflow"))
        call([self._program, "db", "migrate"], self._environment(), self._ground.log("airflow"))
        log = self._ground.log("airflow-worker")
        command = [self._program, "celery", "worker", "-c", str(CHILDREN), "--skip-serve-logs"]
        with running(command, self._environment(), log) as process:
            wait_for(process, log, " ready.", within=90)
            yield self

    def tasks_per_second(self, dates: int) -> float:
        """Backfill the next `dates` dates, and return the throughput."""
        first = FIRST + timedelta(days=dates * self._rounds)
        last = first + timedelta(days=dates - 1)
        self._rounds += 1
        command = [self._program, "dags", "backfill", "bench", "-s", f"{first:%Y-%m-%d}", "-e", f"{last:%Y-%m-%d}"]
        call(command, self._environment(), self._ground.log("airflow"))
        engine = create_engine(self._url.render_as_string(hide_password=False), application_name="backfill bench")
        with engine.connect() as tx:
            span = {"first": _RUN_ID.format(first), "last": _RUN_ID.format(last)}
            count, seconds = tx.execute(text(_SPAN), span).one()
        engine.dispose()
        rows.check(count, TASKS * dates)
        return float(count) / float(seconds)

    def version(self) -> str:
        """Return its version."""
        log = self._ground.log("airflow")
        call([self._program, "version"], self._environment(), log)
        return log.read_text().split()[-1]

    def _environment(self) -> dict[str, str]:
        url = self._url.render_as_string(hide_password=False)
        queues = f"{self._ground.broker_url}?virtual_host={_QUEUES}"
        own = {
            "AIRFLOW_HOME": str(self._home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "benchmarks" / "airflow_dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
            "AIRFLOW__CELERY__BROKER_URL": queues,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{url}",
        }
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return {**inherited, **own, "PATH": f"{Path(self._program).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
