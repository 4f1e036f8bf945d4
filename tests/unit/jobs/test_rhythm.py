"""When the loop looks again, and for how long it lets reports gather."""

from __future__ import annotations

import pytest

from backfill.jobs.rhythm import LINGER_SHARE, LONGEST_LINGER, Rhythm


@pytest.fixture
def rhythm() -> Rhythm:
    return Rhythm(sweep_every=5.0, look_every=1.0, clock=lambda: 0.0)


def test_on_an_idle_system_no_report_waits_for_another(rhythm: Rhythm) -> None:
    assert rhythm.linger() == 0
    rhythm.workers_kept_waiting(None)
    assert rhythm.linger() == 0


def test_reports_gather_for_part_of_the_time_that_attempts_wait_for_a_worker(rhythm: Rhythm) -> None:
    rhythm.workers_kept_waiting(0.1)
    assert rhythm.linger() == pytest.approx(0.1 * LINGER_SHARE)
    assert LINGER_SHARE < 1


def test_they_never_gather_for_long(rhythm: Rhythm) -> None:
    rhythm.workers_kept_waiting(3600)
    assert rhythm.linger() == LONGEST_LINGER


def test_an_attempt_that_was_queued_again_since_does_not_count(rhythm: Rhythm) -> None:
    rhythm.workers_kept_waiting(-60.0)
    assert rhythm.linger() == 0


def test_a_round_that_did_a_portion_is_followed_by_the_next_at_once(rhythm: Rhythm) -> None:
    assert rhythm.due_in() == 5
    rhythm.go_on()
    assert rhythm.due_in() == 0
    rhythm.begin_round()
    assert rhythm.due_in() == 5
