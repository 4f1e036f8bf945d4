"""A stage for the jobs of one test."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from playhouse import Playhouse
from sqlalchemy import Engine

from backfill.config import Settings
from backfill.testing.stage import Stage


@pytest.fixture
def house(engine: Engine) -> Iterator[Playhouse]:
    with ExitStack() as at_the_end:
        yield Playhouse(Stage(engine=engine, settings=Settings()), at_the_end)
