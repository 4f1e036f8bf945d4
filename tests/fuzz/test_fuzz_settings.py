"""Whatever stands in the settings file or the environment: it is taken, or one sentence names the setting and its value."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings as hypothesis_settings, strategies as st

from backfill.config import Settings, load_settings
from backfill.exceptions import ConfigError

quick = hypothesis_settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
NAMES = [name for name, _ in Settings().items()]
values = st.one_of(
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["nan", "inf", "-1", "9" * 5000, "1e999", "~nobody/x", "~", "postgresql://", "redis://:x@[", "٣"]),
)


def told(environment: dict[str, str], folder: Path) -> str:
    """Return what is said of the settings; nothing where they are taken."""
    try:
        load_settings(environment, folder)
    except ConfigError as error:
        return str(error)
    return ""


def is_one_sentence(text: str) -> bool:
    return len(text.splitlines()) == 1 and text.endswith((".", "?"))


@quick
@given(name=st.sampled_from(NAMES), value=values)
@example(name="core.parallelism", value="9" * 5000)
@example(name="task.heartbeat_timeout", value="nan")
def test_the_value_of_a_variable_is_taken_or_named_in_one_sentence_whatever_it_is(
    name: str, value: str, tmp_path: Path
) -> None:
    said = told({f"BACKFILL__{name.replace('.', '__').upper()}": value}, tmp_path)
    assert said == "" or is_one_sentence(said)


@quick
@given(variable=st.text("BACKFILL_CORE", min_size=1, max_size=12), value=values)
def test_a_variable_is_known_or_named_in_one_sentence_whatever_it_is(variable: str, value: str, tmp_path: Path) -> None:
    said = told({f"BACKFILL__{variable}": value, f"BACKFILL_{variable}": value}, tmp_path)
    assert said == "" or is_one_sentence(said)


@quick
@given(content=st.one_of(st.binary(max_size=60), st.text("[]core.=\"'\n 1aé", max_size=60).map(str.encode)))
@example(content=b"[core]\nhome = [[[[1]]]]")
@example(content=b"[core]\nparallelism = 1979-05-27T07:32:00Z")
@example(content=b"x = " + b"[" * 5000)
def test_a_file_is_read_or_refused_in_one_sentence_whatever_it_holds(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "backfill.toml").write_bytes(content)
    said = told({"BACKFILL_CONFIG": str(tmp_path / "backfill.toml")}, tmp_path)
    assert said == "" or is_one_sentence(said)


@pytest.mark.parametrize("name", sorted(name for name in NAMES if name in {"core.secret_key", "flower.password"}))
def test_a_secret_is_not_repeated_in_what_is_told(name: str, tmp_path: Path) -> None:
    (tmp_path / "backfill.toml").write_text(f"[{name.split('.', maxsplit=1)[0]}]\n{name.split('.')[1]} = 5318008\n")
    with pytest.raises(ConfigError) as refused:
        load_settings({"BACKFILL_CONFIG": str(tmp_path / "backfill.toml")}, tmp_path)
    assert "5318008" not in str(refused.value)
