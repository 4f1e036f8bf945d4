"""Whatever is typed: the command does it, or says in one sentence what is wrong, with the exit code for that."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from importlib import import_module

import pytest
from click.testing import Result
from endings import faults
from hypothesis import HealthCheck, Phase, example, given, settings as hypothesis_settings, strategies as st

quick = hypothesis_settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
Command = Callable[..., Result]

#: What a process can be given: anything but NUL, and bytes that are no UTF-8 as Python reads them.
words = st.text(
    st.one_of(
        st.characters(codec="utf-8", exclude_characters="\0"),
        st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF, categories=["Cs"]),
    ),
    max_size=30,
)
RANGE = ("-s", "2024-01-01", "-e", "2024-01-03")
_LONG = "9" * 5000


def asked(value: str) -> str:
    """Return a value as a word of its own, which is no option whatever it begins with."""
    return value if not value.startswith("-") else f"./{value}"


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)


@quick
@given(
    conf=st.one_of(
        words, json_values.map(json.dumps), st.dictionaries(st.text(max_size=8), json_values).map(json.dumps)
    )
)
@example(conf="[" * 100_000)
@example(conf='{"a":' * 50_000)
@example(conf=f'{{"a": {_LONG}}}')
@example(conf='{"a": 1e999}')
@example(conf='{"a": "\\u0000"}')
@example(conf='{"a": "\\ud800"}')
@example(conf='{"\\u0000": 1}')
@example(conf='{"a": "\udcff"}')
@example(conf='{"region": 5}')
def test_a_conf_is_taken_or_refused_whatever_it_is(conf: str, command: Command) -> None:
    assert faults(command("submit", "sales", *RANGE, "--conf", conf)) == []


@quick
@given(regex=st.one_of(words, st.text("ab()[]{}*+?|\\^$.0-9,:=!<>P", max_size=25)))
@example(regex="a{99999999999999999999}")
@example(regex="(" * 3000 + ")" * 3000)
@example(regex="[[a]")
@example(regex="(?P<a>")
@example(regex="\udcff")
def test_a_regular_expression_is_followed_or_refused_whatever_it_is(regex: str, command: Command) -> None:
    assert faults(command("plan", "sales", *RANGE, f"--task-regex={regex}")) == []
    assert faults(command("clear", "sales", *RANGE, "-y", f"--task-regex={regex}")) == []
    assert faults(command("plan", asked(regex), *RANGE, "--treat-dag-id-as-regex")) == []


@pytest.mark.parametrize("regex", ["(a+)+$", "(a|a)*$"])
def test_a_regex_that_would_take_for_ever_is_given_up(
    regex: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("backfill.dag.matching"), "LONGEST", 0.2)
    ended = command("plan", "sales", *RANGE, "--task-regex", regex)
    assert faults(ended) == []
    assert ended.exit_code == 2
    assert ended.stderr.startswith(f"Error: The regular expression {regex!r} takes too long; leave out repetitions")


dates = st.one_of(
    words,
    st.datetimes().map(str),
    st.datetimes(timezones=st.timezones()).map(lambda date: date.isoformat()),
    st.sampled_from(["0001-01-01", "9999-12-31", "9999-12-31T23:59:59.999999", "0001-01-01T00:00+14:00", "2024-02-30"]),
    st.from_regex(r"\d{1,5}-\d\d-\d\d(T\d\d(:\d\d)?)?([+-]\d\d:\d\d)?", fullmatch=True, alphabet=string.printable),
)


@quick
@given(date=dates, dag=st.sampled_from(["sales", "none", "hourly"]))
@example(date="9999-12-31", dag="sales")
@example(date="0001-01-01", dag="sales")
@example(date="0001-01-01", dag="hourly")
@example(date="9999-12-31", dag="hourly")
@example(date="9999-12-31", dag="none")
def test_a_date_is_understood_or_refused_whatever_it_is(date: str, dag: str, command: Command) -> None:
    assert faults(command("plan", dag, f"--start-date={date}")) == []
    assert faults(command("submit", dag, f"--start-date={date}", "--run-at-least-once")) == []
    assert faults(command("clear", dag, f"--end-date={date}", "-y")) == []


@quick
@given(name=words)
@example(name="\udcff")
@example(name="a" * 5000)
@example(name="../" * 40 + "etc/passwd")
@example(name="sales:sales")
def test_a_name_leads_somewhere_or_is_refused_whatever_it_is(name: str, command: Command) -> None:
    assert faults(command("plan", asked(name), *RANGE)) == []
    assert faults(command("plan", "sales", *RANGE, f"--pool={name}")) == []
    assert faults(command("dags", "show", asked(name))) == []
    assert faults(command("plan", "sales", *RANGE, f"--subdir={name}")) == []


@quick
@given(name=words, slots=st.one_of(words, st.integers().map(str)))
@example(name="\udcff", slots="1")
@example(name="p", slots=_LONG)
@example(name="p", slots="99999999999")
def test_a_pool_is_set_and_deleted_or_refused_whatever_it_is(name: str, slots: str, command: Command) -> None:
    assert faults(command("pools", "set", asked(name), "--", slots)) == []
    assert faults(command("pools", "delete", asked(name))) == []


@quick
@given(job=st.one_of(words, st.integers().map(str)))
@example(job=_LONG)
@example(job="9223372036854775808")
@example(job="²")
def test_a_job_number_is_known_or_refused_whatever_it_is(job: str, command: Command) -> None:
    for name in ("status", "tasks", "pause", "cancel", "resume"):
        assert faults(command(name, "--", job)) == []


numbers = st.one_of(
    words,
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["nan", "inf", "-inf", "1e400", "0x10", _LONG, f"{_LONG}%", "5%", "101%", "99999999999999999999"]),
)


@quick
@given(number=numbers, flag=st.sampled_from(["--max-active-runs", "--max-failures", "--delay-on-limit"]))
@example(number="nan", flag="--delay-on-limit")
@example(number="inf", flag="--delay-on-limit")
@example(number="99999999999999999999", flag="--max-active-runs")
@example(number=f"{_LONG}%", flag="--max-failures")
@example(number=_LONG, flag="--max-failures")
def test_a_number_is_taken_or_refused_whatever_it_is(number: str, flag: str, command: Command) -> None:
    assert faults(command("plan", "sales", *RANGE, f"{flag}={number}")) == []
    assert faults(command("submit", "sales", *RANGE, f"{flag}={number}")) == []


@quick
@given(arguments=st.lists(st.one_of(words, st.sampled_from(["plan", "sales", "-s", "2024-01-01", "-v", "-o", "json"]))))
def test_a_row_of_words_is_a_command_or_refused_whatever_they_are(arguments: list[str], command: Command) -> None:
    if not {"worker", "coordinator", "flower", "up"} & set(arguments):
        assert faults(command(*arguments)) == []
