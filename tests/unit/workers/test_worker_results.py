import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backfill import DAG, task
from backfill.exceptions import BackfillError
from workers.results import MOST_INDEXES, mapped_keys, xcoms_of
from workers.surroundings import Surroundings

NONE: frozenset[str] = frozenset()
FED = frozenset({"return_value"})


def operator(**changes: Any) -> Any:
    return SimpleNamespace(**({"task_id": "load", "do_xcom_push": True, "multiple_outputs": False} | changes))


def test_what_a_task_returns_is_its_return_value() -> None:
    assert xcoms_of(operator(), {"a": (1, 2)}, NONE) == {"return_value": '{"a":[1,2]}'}


def test_nothing_is_pushed_for_none_or_when_not_wanted() -> None:
    assert xcoms_of(operator(), None, NONE) == {}
    assert xcoms_of(operator(do_xcom_push=False), 5, NONE) == {}


def test_multiple_outputs_are_pushed_by_their_keys() -> None:
    assert xcoms_of(operator(multiple_outputs=True), {"a": 1}, NONE) == {"return_value": '{"a":1}', "a": "1"}


@pytest.mark.parametrize("result", [[1], {1: "a"}, "text"])
def test_multiple_outputs_demand_a_dict_with_text_keys(result: Any) -> None:
    with pytest.raises(BackfillError, match="'load' has multiple_outputs and returned"):
        xcoms_of(operator(multiple_outputs=True), result, NONE)


@pytest.mark.parametrize("result", [object(), {1, 2}, float("nan"), b"bytes", "zero \x00 byte", "\ud800"])
def test_a_value_that_cannot_be_kept_is_named(result: Any) -> None:
    with pytest.raises(BackfillError, match="load's 'return_value'"):
        xcoms_of(operator(), result, NONE)


@pytest.mark.parametrize("result", [[], [1], {"a": 1}, (1,), list(range(MOST_INDEXES))])
def test_what_can_be_mapped_over_may_feed_a_mapping(result: Any) -> None:
    assert list(xcoms_of(operator(), result, FED)) == ["return_value"]


@pytest.mark.parametrize(
    ("result", "complaint"),
    [
        (None, "returned nothing"),
        ("text", "of type str, which cannot be mapped over"),
        (5, "of type int, which cannot be mapped over"),
        (list(range(MOST_INDEXES + 1)), "returned 1025 values; at most 1024"),
    ],
)
def test_what_cannot_be_mapped_over_fails_the_task_that_feeds_a_mapping(result: Any, complaint: str) -> None:
    with pytest.raises(BackfillError, match=complaint):
        xcoms_of(operator(), result, FED)


def test_the_keys_that_are_mapped_over_are_found() -> None:
    @task
    def numbers() -> list[int]:
        return [1]

    @task(multiple_outputs=True)
    def columns() -> dict[str, list[int]]:
        return {"a": [1]}

    @task
    def double(number: int) -> int:
        return 2 * number

    @task
    def total(values: list[int]) -> int:
        return sum(values)

    with DAG("mapped") as dag:
        doubled = double.expand(number=numbers())
        double.override(task_id="of_column").expand(number=columns()["a"])
        double.override(task_id="twice").expand(number=doubled)
        total(doubled)
    assert mapped_keys(dag) == {"numbers": {"return_value"}, "columns": {"a"}}


def test_a_task_leaves_no_trace_in_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setenv("REMOVED", "1")
    folder, environment = Path.cwd(), dict(os.environ)
    with Surroundings() as surroundings:
        os.environ["KEPT"] = "2"
        os.environ["ADDED"] = "3"
        del os.environ["REMOVED"]
        os.chdir(tmp_path)
        surroundings.restore()
    assert (Path.cwd(), dict(os.environ)) == (folder, environment)


def test_a_folder_that_is_gone_is_left(tmp_path: Path) -> None:
    folder = Path.cwd()
    gone = tmp_path / "gone"
    gone.mkdir()
    with Surroundings() as surroundings:
        os.chdir(gone)
        gone.rmdir()
        surroundings.restore()
    assert Path.cwd() == folder


def test_a_task_finds_what_is_told_about_it_and_nothing_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABOUT_TASK", "from outside")
    before = dict(os.environ)
    with Surroundings() as surroundings:
        for task_id in ("first", "second"):
            surroundings.tell({"ABOUT_DAG": "sales", "ABOUT_TASK": task_id})
            assert (os.environ["ABOUT_DAG"], os.environ["ABOUT_TASK"]) == ("sales", task_id)
            assert "LEFT" not in os.environ
            os.environ["LEFT"] = os.environ["ABOUT_DAG"] = "changed"
            surroundings.restore()
    assert dict(os.environ) == before
