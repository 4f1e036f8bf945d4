"""Settings as an operator writes them, and mistakes in them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from backfill.config import Settings, generated_secret, load_settings
from backfill.exceptions import ConfigError


def load(tmp_path: Path, toml: str = "", **env: str) -> Settings:
    """Load settings from a file with that text and from that environment."""
    file = tmp_path / "backfill.toml"
    file.write_text(toml)
    return load_settings({"BACKFILL_CONFIG": str(file), **env}, cwd=tmp_path)


def refusal(tmp_path: Path, toml: str = "", **env: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, toml, **env)
    return str(refused.value).replace(str(tmp_path / "backfill.toml"), "FILE")


def test_each_place_is_put_over_the_one_before_it(tmp_path: Path) -> None:
    toml = '[core]\nparallelism = 3\n[worker]\nconcurrency = 5\n[logging]\nlevel = "WARNING"\n'
    settings = load(tmp_path, toml, BACKFILL__CORE__PARALLELISM="4", BACKFILL__TASK__QUEUED_TIMEOUT="1.5")
    assert (settings.core.parallelism, settings.worker.concurrency, settings.logging.level) == (4, 5, "warning")
    assert settings.task.queued_timeout == timedelta(seconds=1.5)
    assert settings.origins["core.parallelism"] == "$BACKFILL__CORE__PARALLELISM"
    assert settings.origins["worker.concurrency"] == str(tmp_path / "backfill.toml")


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("x = [", "The settings file FILE cannot be read: Invalid value (at end of document)."),
        ("x = 1", "The settings file FILE sets 'x' outside of a section; put it below [section]."),
        (
            "[core]\nparallelsm = 3",
            "FILE sets 'core.parallelsm', which is no setting; did you mean 'core.parallelism'?",
        ),
        ("[a]\nb = 3", "FILE sets 'a.b', which is no setting; `backfill config show` lists those that exist."),
        ('[core]\nparallelism = "x"', "FILE sets core.parallelism to 'x'; it takes a whole number from 0."),
        ("[core]\nparallelism = 3.7", "FILE sets core.parallelism to 3.7; it takes a whole number from 0."),
        ("[core]\nparallelism = true", "FILE sets core.parallelism to True; it takes a whole number from 0."),
        ("[core]\nhome = 3", "FILE sets core.home to 3; it takes a path."),
        ('[core]\nhome = ""', "FILE sets core.home to ''; it takes a path."),
        ("[celery]\nqueue = []", "FILE sets celery.queue to []; it takes a text that is not empty."),
        ('[celery]\nqueue = ""', "FILE sets celery.queue to ''; it takes a text that is not empty."),
        ('[celery]\nreadable_names = "maybe"', "FILE sets celery.readable_names to 'maybe'; it takes true or false."),
        ("[flower]\nport = 99999", "FILE sets flower.port to 99999; it takes a whole number from 1 to 65535."),
        ("[flower]\nport = 0", "FILE sets flower.port to 0; it takes a whole number from 1 to 65535."),
        ('[logging]\nformat = "xml"', "FILE sets logging.format to 'xml'; it takes text or json."),
        ('[logging]\nlevel = "loud"', "FILE sets logging.level to 'loud'; it takes debug, info, warning or error."),
        ('[database]\nurl = ["deep"]', "FILE sets database.url to a value; it takes a text."),
    ],
)
def test_a_mistake_in_the_file_is_named_with_what_to_write(tmp_path: Path, toml: str, told: str) -> None:
    assert refusal(tmp_path, toml) == told


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e300", "soon"])
def test_a_duration_is_some_seconds(tmp_path: Path, seconds: str) -> None:
    told = refusal(tmp_path, BACKFILL__TASK__HEARTBEAT_INTERVAL=seconds)
    assert told.startswith(
        f"$BACKFILL__TASK__HEARTBEAT_INTERVAL sets task.heartbeat_interval to '{seconds}'; it takes sec"
    )


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("BACKFILL__CORE__PARALLELSM", "$BACKFILL__CORE__PARALLELISM"),
        ("BACKFILL__CORE_DAGS_FOLDER", "$BACKFILL__CORE__DAGS_FOLDER"),
        ("BACKFILL_CORE__PARALLELISM", "$BACKFILL__CORE__PARALLELISM"),
    ],
)
def test_a_misspelt_variable_is_not_passed_over(tmp_path: Path, variable: str, meant: str) -> None:
    assert refusal(tmp_path, **{variable: "3"}).endswith(f"did you mean {meant}?")


def test_variables_of_other_programs_are_none_of_ours(tmp_path: Path) -> None:
    assert load(tmp_path, BACKFILL_IMAGE__TAG="1", BACKFILL_UID="0", BACKFILL="x").origins == {}


def test_a_file_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(ConfigError, match=r"names '.*missing', which is no file; correct the path or unset it\.$"):
        load_settings({"BACKFILL_CONFIG": str(missing)})
    told = refusal(tmp_path, BACKFILL__DATABASE__URL_FILE=str(missing))
    assert told == f"$BACKFILL__DATABASE__URL_FILE names '{missing}', which cannot be read: No such file or directory."


def test_a_secret_comes_from_its_file_and_stays_out_of_errors(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://me:deep@db/backfill\n")
    settings = load(tmp_path, BACKFILL__DATABASE__URL_FILE=str(tmp_path / "url"))
    assert settings.database.url == "postgresql://me:deep@db/backfill"
    (tmp_path / "url").write_bytes(b"\xff\xfe")
    assert refusal(tmp_path, BACKFILL__DATABASE__URL_FILE=str(tmp_path / "url")).endswith("read: it is no text.")


def test_a_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    made = generated_secret(tmp_path / "home" / "secret_key")
    assert generated_secret(tmp_path / "home" / "secret_key") == made
    assert (tmp_path / "home" / "secret_key").stat().st_mode & 0o777 == 0o600
    assert [file.name for file in (tmp_path / "home").iterdir()] == ["secret_key"]


def test_a_home_that_cannot_hold_a_secret_is_named(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(
        ConfigError, match=r"home/secret_key cannot be kept or read: .*; make the folder usable, or set core\.home"
    ):
        generated_secret(tmp_path / "home" / "secret_key")
