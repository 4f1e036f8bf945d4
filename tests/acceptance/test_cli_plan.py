"""`backfill plan` and `run -n`: what would be done is told, what would be refused is refused, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import Result

from backfill.config import Settings

Command = Callable[..., Result]

DAG_FILE = """
from datetime import datetime

from backfill import DAG, task
from backfill.operators import BashOperator

with DAG("sales", schedule="@daily", start_date=datetime(2024, 1, 1), end_date=datetime(2024, 6, 30), params={"region": "north"}):
    pull = BashOperator(task_id="pull", bash_command="echo {{ ds }} {{ params.region }} {{ dag_run.conf.get('who', 'nobody') }}")
    load = BashOperator(task_id="load", bash_command="exit 0", depends_on_past=True, max_active_tis_per_dag=2)
    note = BashOperator(task_id="note", bash_command="echo sorry", trigger_rule="one_failed")
    pull >> load >> note

with DAG("mapped", schedule="@daily", start_date=datetime(2024, 1, 1)):

    @task
    def count():
        return [1, 2, 3]

    @task
    def show(number):
        print(number)

    show.expand(number=count())
    BashOperator.partial(task_id="say").expand(bash_command=["echo {{ ds }}", "echo {{ ds_nodash }}"])

with DAG("broken", schedule="@daily", start_date=datetime(2024, 1, 1)):
    BashOperator(task_id="good", bash_command="echo {{ ds }}")
    BashOperator(task_id="bad", bash_command="echo {{ no_such_name }}")
"""
PLAN = ("plan", "sales", "-s", "2024-01-01", "-e", "2024-01-03")


@pytest.fixture(autouse=True)
def _dags(settings: Settings) -> None:
    settings.core.dags_folder.mkdir()
    (settings.core.dags_folder / "sales.py").write_text(DAG_FILE)


@pytest.fixture(autouse=True)
def engine(settings: Settings) -> Iterator[sa.Engine]:
    engine = sa.create_engine(settings.database.url.replace("postgresql://", "postgresql+psycopg2://"))
    yield engine
    engine.dispose()


@pytest.fixture
def rows(engine: sa.Engine) -> Callable[[], dict[str, int]]:
    """Return a function that counts the rows of every table."""

    def count() -> dict[str, int]:
        with engine.connect() as tx:
            names = sa.inspect(tx).get_table_names()
            return {name: tx.execute(sa.text(f"select count(*) from {name}")).scalar_one() for name in names}

    return count


def plan_of(ended: Result) -> dict[str, Any]:
    assert ended.exit_code == 0, ended.output
    plan: dict[str, Any] = json.loads(ended.stdout)
    return plan


def fates(plan: dict[str, Any], *, day: str = "2024-01-01") -> dict[str, str]:
    return {row["task_id"]: row["action"] for row in plan["task_instances"] if row["logical_date"].startswith(day)}


def set_states(engine: sa.Engine, day: str, run_state: str, **states: str) -> None:
    with engine.begin() as tx:
        found = {"day": f"{day}T00:00:00+00:00", "state": run_state}
        run = tx.execute(sa.text("update dag_run set state = :state where logical_date = :day returning id"), found)
        run_id = run.scalar_one()
        for task_id, state in states.items():
            values = {"run": run_id, "task": task_id, "state": state}
            tx.execute(
                sa.text("update task_instance set state = :state where dag_run_id = :run and task_id = :task"), values
            )


def test_a_plan_names_dates_task_instances_and_limits(command: Command) -> None:
    plan = plan_of(command(*PLAN, "-o", "json"))
    assert [(date["logical_date"], date["action"]) for date in plan["dates"]] == [
        (f"2024-01-0{day}T00:00:00+00:00", "create") for day in (1, 2, 3)
    ]
    assert plan["dates"][0]["run_id"] == "backfill__2024-01-01T00:00:00+00:00"
    assert plan["tasks"] == {"total": 9, "run": 6, "done": 0, "rerun": 0, "left_out": 3, "blocked": 0}
    assert fates(plan) == {"pull": "run", "load": "run", "note": "left_out"}
    assert plan["task_instances"][2]["why"] == "would be skipped, by trigger rule one_failed after load success"
    limits = {
        (limit["limit"], limit["of"]): (limit["value"], limit["wanted"], limit["binds"]) for limit in plan["limits"]
    }
    assert limits["max_active_runs", "sales"] == (16, 3, False)
    assert limits["max_active_tis_per_dag", "load"] == (2, 3, True)
    assert plan["estimate"] == {"seconds": None, "by": None, "without_history": ["pull", "load"]}


@pytest.mark.parametrize(
    "arguments", [PLAN, (*PLAN, "-v"), (*PLAN, "-o", "json"), ("run", *PLAN[1:], "-n"), ("submit", *PLAN[1:], "-n")]
)
def test_nothing_is_written_and_no_broker_is_asked(
    command: Command, rows: Callable[[], dict[str, int]], arguments: tuple[str, ...]
) -> None:
    before = rows()
    ended = command(*arguments, celery__broker_url="redis://127.0.0.1:1/0")
    assert ended.exit_code == 0, ended.output
    assert rows() == before


def test_dates_without_anything_to_run_take_no_time(command: Command) -> None:
    marked = plan_of(command(*PLAN, "-m", "-o", "json"))
    assert (marked["tasks"]["run"], marked["estimate"]["seconds"]) == (6, 0)


def test_workers_and_parallelism_are_limits_too(command: Command) -> None:
    plan = plan_of(command(*PLAN, "--workers", "2", "-o", "json", core__parallelism=3))
    found = {limit["limit"]: limit["binds"] for limit in plan["limits"]}
    assert (found["--workers"], found["core.parallelism"]) == (True, False)


def test_a_plan_for_people_groups_dates_at_which_the_same_happens(command: Command) -> None:
    told = command("plan", "sales", "-s", "2024-01-01", "-e", "2024-07-31").stdout
    assert told.splitlines()[0] == (
        "Plan of sales: 213 dates (182 create, 31 left out), 639 task instances (364 run, 275 left out)"
    )
    assert "2024-01-01 to 2024-06-30" in told
    assert "31 dates left out: after the DAG's end_date 2024-06-30T00:00:00+00:00." in told
    assert len(told.splitlines()) < 25


def test_verbose_names_every_task_instance(command: Command) -> None:
    told = command(*PLAN, "-v").stdout
    assert sum(line.startswith("2024-01-0") for line in told.splitlines()) == 9


def test_after_a_run_the_plan_knows_what_is_done_and_how_long_it_took(command: Command) -> None:
    ran = command("run", *PLAN[1:], "-l")
    assert ran.exit_code == 0, ran.output
    plan = plan_of(command("plan", "sales", "-s", "2024-01-02", "-e", "2024-01-04", "-o", "json"))
    assert [date["action"] for date in plan["dates"]] == ["done", "done", "create"]
    assert fates(plan, day="2024-01-02") == {"pull": "done", "load": "done", "note": "done"}
    assert fates(plan, day="2024-01-04") == {"pull": "run", "load": "run", "note": "left_out"}
    assert plan["estimate"]["seconds"] > 0
    assert plan["estimate"]["without_history"] == []

    again = plan_of(command(*PLAN, "--reprocess", "completed", "-o", "json"))
    assert {date["action"] for date in again["dates"]} == {"clear"}
    assert fates(again) == {"pull": "rerun", "load": "rerun", "note": "left_out"}


def test_what_ended_badly_before_blocks_unless_it_is_rerun(command: Command, engine: sa.Engine) -> None:
    assert command("run", "sales", "-s", "2024-01-01", "-l").exit_code == 0
    set_states(engine, "2024-01-01", "failed", load="failed")

    day_2 = ("plan", "sales", "-s", "2024-01-02", "-o", "json")
    assert (
        fates(plan_of(command(*day_2)), day="2024-01-02")["load"] == "run"
    )  # the first of the range need not look back
    strict = plan_of(command(*day_2, "--no-ignore-first-depends-on-past"))
    assert fates(strict, day="2024-01-02") == {"pull": "run", "load": "blocked", "note": "blocked"}
    why = {row["task_id"]: row["why"] for row in strict["task_instances"]}
    assert why["load"] == "waits for load of 2024-01-01T00:00:00+00:00 (failed)"

    both = ("plan", "sales", "-s", "2024-01-01", "-e", "2024-01-02", "-o", "json")
    left = plan_of(command(*both))
    assert [date["action"] for date in left["dates"]] == ["done", "create"]
    assert fates(left, day="2024-01-02")["load"] == "blocked"
    assert "counts as done: the job will end as failed" in left["notes"][0]
    mended = plan_of(command(*both, "--rerun-failed-tasks"))
    assert fates(mended) == {"pull": "done", "load": "rerun", "note": "done"}
    assert fates(mended, day="2024-01-02")["load"] == "run"


def test_a_subset_names_what_was_not_chosen(command: Command) -> None:
    plan = plan_of(command(*PLAN, "-t", "pull", "-o", "json"))
    assert plan["tasks_not_chosen"] == ["load", "note"]
    assert fates(plan) == {"pull": "run"}


def test_a_mapping_whose_length_is_not_known_counts_as_one(command: Command) -> None:
    plan = plan_of(command("plan", "mapped", "-s", "2024-01-01", "-o", "json"))
    found = [(row["task_id"], row["map_index"], row["action"], row["why"]) for row in plan["task_instances"]]
    assert sorted(found) == [
        ("count", -1, "run", None),
        ("say", 0, "run", None),
        ("say", 1, "run", None),
        ("show", -1, "run", "as many as what it is mapped over has values"),
    ]


def test_an_expanded_mapping_is_planned_index_by_index(command: Command, engine: sa.Engine) -> None:
    assert command("run", "mapped", "-s", "2024-01-01", "-l").exit_code == 0
    with engine.begin() as tx:
        tx.execute(sa.text("update task_instance set state = 'failed' where task_id = 'show' and map_index = 1"))
    again = ("plan", "mapped", "-s", "2024-01-01", "-t", "show", "--rerun-failed-tasks", "-o", "json")
    found = [(row["task_id"], row["map_index"], row["action"]) for row in plan_of(command(*again))["task_instances"]]
    assert found == [("count", -1, "done"), ("show", 0, "done"), ("show", 1, "rerun"), ("show", 2, "done")]


def test_a_mapping_whose_source_is_not_chosen_names_what_is_missing(command: Command) -> None:
    plan = plan_of(command("plan", "mapped", "-s", "2024-01-01", "-t", "show", "-i", "-o", "json"))
    (show,) = plan["task_instances"]
    assert (show["action"], show["why"]) == (
        "blocked",
        "would be upstream_failed, as no values of count are stored to map it over",
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("nothing", "-s", "2024-01-01"), 2),
        (("sales",), 2),
        (("sales", "-s", "2024-01-02", "-e", "2024-01-01"), 2),
        (("sales", "-s", "2024-01-01", "-t", "zzz"), 2),
        (("sales", "-s", "2024-01-01", "--pool", "nowhere"), 2),
        (("sales", "-s", "2024-01-01", "-B"), 5),
        (("sales", "-s", "2024-12-01"), 5),
    ],
)
def test_a_plan_is_refused_as_the_run_would_be(command: Command, arguments: tuple[str, ...], code: int) -> None:
    planned, rehearsed, ran = (
        command(*words) for words in (("plan", *arguments), ("run", *arguments, "-n"), ("run", *arguments, "-l"))
    )
    assert (planned.exit_code, rehearsed.exit_code, ran.exit_code) == (code, code, code)
    assert planned.stderr == rehearsed.stderr == ran.stderr
    assert planned.stdout == ""


def test_a_plan_of_dates_that_another_job_owns_is_refused(command: Command) -> None:
    assert command("submit", *PLAN[1:], "-l").exit_code == 0
    refused = command(*PLAN)
    assert refused.exit_code == 5
    assert "owns 2024-01-01T00:00:00+00:00 of DAG 'sales'" in refused.stderr
    adjoining = plan_of(command("plan", "sales", "-s", "2024-01-04", "--no-ignore-first-depends-on-past", "-o", "json"))
    why = {row["task_id"]: row["why"] for row in adjoining["task_instances"]}
    assert why["load"] == "once another job has finished 2024-01-03T00:00:00+00:00"


def test_a_dry_run_shows_the_template_fields_of_the_first_date(command: Command) -> None:
    dry = ("run", *PLAN[1:], "-n", "-c", '{"who": "me", "region": "south"}')
    templates = plan_of(command(*dry, "-o", "json"))["templates"]
    assert templates["logical_date"] == "2024-01-01T00:00:00+00:00"
    fields = {task["task_id"]: task["fields"] for task in templates["tasks"]}
    assert fields["pull"]["bash_command"] == "echo 2024-01-01 south me"
    assert "    bash_command: echo 2024-01-01 south me" in command(*dry).stdout.splitlines()


def test_mapped_tasks_are_rendered_index_by_index_and_xcoms_to_come_have_a_placeholder(command: Command) -> None:
    plan = plan_of(command("run", "mapped", "-s", "2024-01-01", "-n", "-o", "json"))
    found = {(task["task_id"], task["map_index"]): task for task in plan["templates"]["tasks"]}
    assert found["say", 0]["fields"]["bash_command"] == "echo 2024-01-01"
    assert found["say", 1]["fields"]["bash_command"] == "echo 20240101"
    assert found["show", -1]["note"] == "its map indexes are known only in the run"


def test_a_template_that_fails_is_shown_with_its_error_and_exit_code_1(
    command: Command, rows: Callable[[], dict[str, int]]
) -> None:
    before = rows()
    ended = command("run", "broken", "-s", "2024-01-01", "-n")
    assert ended.exit_code == 1
    lines = ended.stdout.splitlines()
    assert "    bash_command: echo 2024-01-01" in lines
    assert (
        "    Error: The template field 'bash_command' of the task 'bad' cannot be rendered: 'no_such_name' is undefined."
        in lines
    )
    assert rows() == before


def test_plain_lines_are_the_task_instances(command: Command) -> None:
    lines = command(*PLAN, "-o", "plain").stdout.splitlines()
    assert lines[0] == "logical_date\ttask_id\tmap_index\taction\tstate\twhy"
    assert len(lines) == 10


def test_a_plan_with_a_reset_tells_what_is_run_again(command: Command, engine: sa.Engine) -> None:
    assert command("run", *PLAN[1:], "-l", "-m").exit_code == 0
    done = plan_of(command(*PLAN, "-o", "json"))
    assert (done["runs"]["done"], done["tasks"]["done"]) == (3, 9)
    reset = plan_of(command(*PLAN, "--reset-dagruns", "-o", "json"))
    assert (reset["runs"]["clear"], reset["tasks"]["done"]) == (3, 0)
    assert {(row["task_id"], row["action"]) for row in reset["task_instances"]} >= {
        ("pull", "rerun"),
        ("load", "rerun"),
    }
    subset = plan_of(command(*PLAN, "--reset-dagruns", "-t", "pull", "-o", "json"))
    assert [row["action"] for row in subset["task_instances"]] == ["rerun"] * 3


@pytest.mark.parametrize("asked", [("plan",), ("run", "-n")])
def test_all_dags_that_match_are_planned_one_after_the_other(command: Command, asked: tuple[str, ...]) -> None:
    word, *flags = asked
    several = ("-s", "2024-01-01", "--treat-dag-id-as-regex", *flags)
    shown = command(word, "sales|mapped", *several, "-o", "json")
    assert shown.exit_code == 0, shown.output
    plans = json.loads(shown.stdout)
    assert [each["dag_id"] for each in plans] == ["mapped", "sales"]
    assert all(("templates" in each) == bool(flags) for each in plans)
    for people in (command(word, "sales|mapped", *several), command(word, "sales|mapped", *several, "-o", "plain")):
        assert people.exit_code == 0
        assert "load" in people.stdout
    assert command(word, "nobody", *several).exit_code == 2
