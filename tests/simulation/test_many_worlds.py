"""Thousands of simulated worlds: `make simulate`. A failure ends with the command that finds it again."""

from __future__ import annotations

import os
from random import SystemRandom

import pytest
from hypothesis import seed
from test_early_ends import FailStop, RunTimeout
from test_simulation import Disturbed, HandledByOperators, play
from test_two_jobs import TwoJobs


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("machine", [Disturbed, HandledByOperators, TwoJobs, FailStop, RunTimeout])
def test_many_more_worlds(machine: type[Disturbed]) -> None:
    examples = int(os.environ.get("SIMULATE_EXAMPLES") or 500)
    number = int(os.environ.get("SIMULATE_SEED") or SystemRandom().randrange(2**32))
    try:
        assert play(seed(number)(type(machine.__name__, (machine,), {})), examples, derandomize=False) >= examples
    except BaseException as failure:
        failure.add_note(f"Found again by: make simulate SEED={number} EXAMPLES={examples} ONLY={machine.__name__}")
        raise
