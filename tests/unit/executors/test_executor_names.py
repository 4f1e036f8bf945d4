import subprocess
import sys

import pytest

import backfill.executors
from backfill.exceptions import UnknownExecutor
from backfill.executors import BaseExecutor, CeleryExecutor, LocalExecutor, known_names, load, normal_name


@pytest.mark.parametrize(
    ("name", "executor_class"),
    [
        ("celery", CeleryExecutor),
        ("CeleryExecutor", CeleryExecutor),
        ("local", LocalExecutor),
        ("LocalExecutor", LocalExecutor),
    ],
)
def test_an_executor_is_found_by_its_short_name_and_by_its_class(name: str, executor_class: type[BaseExecutor]) -> None:
    executor = load(name)
    assert type(executor) is executor_class
    assert isinstance(executor, BaseExecutor)
    assert executor.name == normal_name(name)


@pytest.mark.parametrize("name", ["", "kubernetes", "Celery", "__all__"])
def test_an_unknown_name_is_refused_with_those_that_exist(name: str) -> None:
    with pytest.raises(UnknownExecutor, match=f"no executor {name!r}; use celery or local"):
        load(name)


def test_the_public_names_are_sorted_and_exist() -> None:
    public = backfill.executors.__all__
    assert public == sorted(public)
    assert all(hasattr(backfill.executors, name) for name in public)
    assert known_names() == ("celery", "local")


def test_another_attribute_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = backfill.executors.Nothing


def test_local_execution_does_not_pay_for_loading_celery() -> None:
    code = "import sys; from backfill.executors import LocalExecutor; sys.exit(bool({'celery', 'redis'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_executor_that_was_not_started_says_so() -> None:
    with pytest.raises(RuntimeError, match="celery executor has not been started"):
        _ = CeleryExecutor().context


def test_an_executor_that_was_not_started_may_be_ended() -> None:
    ended = [load(name) for name in known_names()]
    for executor in ended:
        executor.end()
    assert [executor.name for executor in ended] == list(known_names())
