"""A scratch database for scenarios."""

from collections.abc import Iterator

import pytest

from backfill.testing import drop_scratch_databases


@pytest.fixture(scope="module")
def scratch_url(databases) -> Iterator[str]:
    """A database beside which a module's scratch database is made; both are gone after it."""
    name = databases.clone()
    yield databases.url(name)
    drop_scratch_databases()
    databases.drop(name)


@pytest.fixture(autouse=True)
def settings_of_the_test(scratch_url, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("BACKFILL__DATABASE__URL", scratch_url)
    monkeypatch.setenv("BACKFILL_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
