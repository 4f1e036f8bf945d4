from typing import Any

import pytest

from workers.masking import Masker
from workers.secret_values import secrets_of_environment, secrets_within


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        ("postgres://me:first%21@host/db", {"first%21"}),
        ("postgres://me@host/db", set()),
        ("postgres://me:with/slash@host/db", {"with/slash"}),
        ("http://host?token=first&page=2", {"first"}),
        ("http://host?__extra__=%7B%22private_key%22%3A%22first%22%2C%22region%22%3A%22x%22%7D", {"first"}),
        ("http://me:first@[host", {"http://me:first@[host"}),
        ('{"password": "first", "login": "me"}', {"first"}),
        ('{"extra": "{\\"api-key\\": \\"first\\"}"}', {"first"}),
        ('{"password": null, "extra": null}', set()),
        ("[1, 2]", set()),
        ("{broken", set()),
        ("", set()),
    ],
)
def test_of_a_connection_only_its_secrets_are_taken(text: str, secrets: set[str]) -> None:
    assert secrets_of_environment({"AIRFLOW_CONN_ANY": text, "ANY_PASSWORD": "other"}) == secrets


@pytest.mark.parametrize(
    ("key", "is_secret"),
    [
        ("STOCK_API_KEY", True),
        ("APIKEY", True),
        ("MY_SECRET", True),
        ("DB_PASSWD", True),
        ("PASSPHRASE", True),
        ("ACCESS_TOKEN", True),
        ("KEY", False),
        ("REGION", False),
    ],
)
def test_a_variable_is_a_secret_by_its_key(key: str, is_secret: bool) -> None:
    assert secrets_of_environment({f"AIRFLOW_VAR_{key}": "value"}) == ({"value"} if is_secret else set())


@pytest.mark.parametrize(
    ("value", "secrets"),
    [
        ({"a": {"Password": "first"}, "b": [{"token": ("second", 3)}], "c": "third"}, {"first", "second"}),
        ({"secret": {"inner": "first"}}, {"first"}),
        ({"use_token": "True", "token": None, "secret": 5}, set()),
        ("text", set()),
        (None, set()),
    ],
)
def test_values_under_telling_keys_are_found_however_deep(value: Any, secrets: set[str]) -> None:
    assert secrets_within(value) == secrets


def test_short_words_are_not_masked() -> None:
    assert Masker(secrets_within({"token": "abc"}))("abc") == "abc"


def test_a_secret_of_several_lines_is_masked_line_by_line() -> None:
    mask = Masker(["first line\n}\nsecond line"])
    assert [
        mask(text) for text in ("first line\n}\nsecond line", "first line", "}", r"first line\n}\nsecond line")
    ] == [
        "***",
        "***",
        "}",
        "***",
    ]


def test_secrets_of_bytes_that_are_no_text_are_masked_too() -> None:
    assert Masker(["half \udcff"])("half \udcff of it") == "*** of it"


def test_what_a_copy_learns_stays_its_own() -> None:
    mask = Masker(["first"])
    other = mask.copy()
    other.learn(["second"])
    assert (mask("first second"), other("first second")) == ("*** second", "*** ***")
