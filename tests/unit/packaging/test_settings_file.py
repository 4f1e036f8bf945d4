"""config/backfill.toml is read wherever a command starts in a checkout: as it stands it must change nothing."""

import re
import tomllib
from datetime import timedelta
from pathlib import Path

from project import read

from backfill.config import Settings, load_settings

FILE = "config/backfill.toml"


def uncommented(text: str) -> str:
    return re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)


def test_as_it_stands_it_sets_nothing() -> None:
    assert all(section == {} for section in tomllib.loads(read(FILE)).values())


def test_it_has_every_setting_in_the_order_of_the_documentation() -> None:
    content = tomllib.loads(uncommented(read(FILE)))
    names = [f"{section}.{key}" for section, values in content.items() for key in values]
    assert names == [name for name, _ in Settings().items()]


def test_each_setting_stands_at_its_default(tmp_path: Path) -> None:
    file = tmp_path / "backfill.toml"
    file.write_text(uncommented(read(FILE)))
    assert load_settings({"BACKFILL_CONFIG": str(file)}, tmp_path) == Settings()


def test_durations_are_given_in_seconds() -> None:
    content = tomllib.loads(uncommented(read(FILE)))
    for name, value in Settings().items():
        if isinstance(value, timedelta):
            section, _, key = name.partition(".")
            assert content[section][key] == value.total_seconds()
