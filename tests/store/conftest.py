"""Fixtures of the tests of statements."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine


@pytest.fixture
def tx(engine: Engine) -> Iterator[Connection]:
    """One transaction in a database of the test's own."""
    with engine.begin() as connection:
        yield connection
