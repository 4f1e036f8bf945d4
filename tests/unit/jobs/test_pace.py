import pytest

from backfill.jobs.progress import Pace, Throttle
from backfill.jobs.rhythm import BROKER_PAUSES, ENDS_GATHER_FOR, MORE_RUNS_AFTER, Rhythm


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_the_rate_is_taken_since_the_start_while_that_is_less_than_a_minute_ago():
    clock = Clock()
    pace = Pace(clock)
    assert pace.rate() == 0
    assert pace.time_left(10) is None
    clock.time += 10
    pace.finished(20)
    assert pace.rate() == 2
    assert pace.time_left(10) == 5


def test_no_time_is_left_when_nothing_is_unfinished_or_the_job_is_over():
    clock = Clock()
    pace = Pace(clock)
    clock.time += 10
    pace.finished(20)
    assert pace.time_left(0) is None
    pace.end()
    assert pace.time_left(10) is None


def test_what_finished_longer_than_a_minute_ago_does_not_count():
    clock = Clock()
    pace = Pace(clock)
    for _ in range(200):
        clock.time += 1
        pace.finished(5)
    clock.time += 120
    pace.finished(0)
    assert pace.rate() < 1


def test_the_memory_of_the_pace_does_not_grow_with_the_job():
    clock = Clock()
    pace = Pace(clock)
    for _ in range(10_000):
        clock.time += 0.5
        pace.finished(1)
    assert len(pace._marks) < 70


def test_a_report_passes_on_change_and_at_most_once_a_second():
    clock = Clock()
    throttle = Throttle(clock)
    assert throttle.lets_through(1)
    clock.time += 5
    assert not throttle.lets_through(1)
    assert throttle.lets_through(2)
    assert not throttle.lets_through(3)
    assert throttle.news
    assert throttle.due_in() == 1
    clock.time += 1
    assert throttle.lets_through(3)
    assert not throttle.news


def test_a_broker_that_is_away_is_asked_again_after_growing_pauses_until_it_answers():
    clock = Clock()
    rhythm = Rhythm(sweep_every=100, look_every=1, clock=clock)
    pauses = []
    for _ in range(len(BROKER_PAUSES) + 2):
        pauses.append(rhythm.broker_failed())
        assert rhythm.broker
        assert rhythm.due_in() == pauses[-1]
        clock.time += pauses[-1]
        rhythm.begin_round()
        assert not rhythm.broker
    assert pauses == [*BROKER_PAUSES, BROKER_PAUSES[-1], BROKER_PAUSES[-1]]
    rhythm.broker_answered()
    assert rhythm.broker_failed() == BROKER_PAUSES[0]


@pytest.mark.parametrize("name", ["admission", "dispatch"])
def test_what_others_hold_back_is_looked_at_again_after_the_delay_or_at_once_when_something_ended(name):
    clock = Clock()
    rhythm = Rhythm(sweep_every=5, look_every=1, clock=clock)
    hold = getattr(rhythm, name)
    rhythm.hold_until_others_move(hold)
    assert hold
    assert rhythm.due_in() == 1
    rhythm.something_ended()
    assert not hold
    rhythm.hold_until_others_move(hold)
    clock.time += 1
    rhythm.begin_round()
    assert not hold


def test_ends_that_dispatch_had_counted_as_free_bring_no_other_look():
    rhythm = Rhythm(sweep_every=5, look_every=1, clock=Clock())
    rhythm.hold_until_others_move(rhythm.dispatch)
    rhythm.hold_until_others_move(rhythm.admission)
    rhythm.something_ended(frees_places=False)
    assert rhythm.dispatch
    assert not rhythm.admission


def test_a_look_that_came_due_while_the_round_went_on_is_not_missed():
    clock = Clock()
    rhythm = Rhythm(sweep_every=5, look_every=1, clock=clock)
    rhythm.hold_until_others_move(rhythm.dispatch)
    clock.time += 3
    assert rhythm.due_in() == 0


def test_a_look_that_nobody_takes_does_not_keep_the_loop_awake():
    clock = Clock()
    rhythm = Rhythm(sweep_every=5, look_every=1, clock=clock)
    rhythm.hold_until_others_move(rhythm.dispatch)
    clock.time += 3
    rhythm.begin_round()
    assert rhythm.due_in() == 2


def test_dates_without_room_do_not_hold_back_what_is_ready():
    rhythm = Rhythm(sweep_every=5, look_every=1, clock=Clock())
    rhythm.hold_until_others_move(rhythm.admission)
    assert not rhythm.dispatch


def test_the_sweep_is_due_once_per_interval():
    clock = Clock()
    rhythm = Rhythm(sweep_every=5, look_every=1, clock=clock)
    assert not rhythm.sweep_due()
    clock.time += 5
    assert rhythm.sweep_due()
    assert not rhythm.sweep_due()


def test_runs_that_are_left_are_let_in_with_the_next_round_at_once_while_places_are_free():
    rhythm = Rhythm(sweep_every=5, look_every=1, clock=Clock())
    rhythm.go_on_with_runs()
    assert rhythm.due_in() == 0
    assert not rhythm.admission


@pytest.mark.parametrize("full_before", [True, False], ids=["full before", "full since"])
def test_runs_that_are_left_wait_a_little_while_more_is_ready_than_has_a_place(full_before):
    clock = Clock()
    rhythm = Rhythm(sweep_every=5, look_every=1, clock=clock)
    steps = [lambda: rhythm.hold_until_others_move(rhythm.dispatch), rhythm.go_on_with_runs]
    for step in steps if full_before else reversed(steps):
        step()
    assert rhythm.admission
    assert rhythm.due_in() == pytest.approx(MORE_RUNS_AFTER)
    clock.time += 2 * MORE_RUNS_AFTER
    rhythm.begin_round()
    assert not rhythm.admission


def test_runs_that_are_left_are_let_in_at_once_when_something_has_ended():
    rhythm = Rhythm(sweep_every=5, look_every=1, clock=Clock())
    rhythm.hold_until_others_move(rhythm.dispatch)
    rhythm.go_on_with_runs()
    rhythm.something_ended()
    assert not rhythm.admission


def test_ends_of_runs_gather_for_a_moment_while_more_is_ready_than_has_a_place():
    clock = Clock()
    rhythm = Rhythm(sweep_every=5, look_every=1, clock=clock)
    rhythm.hold_until_others_move(rhythm.dispatch)
    assert rhythm.ends_wait(may_wait=True)
    assert rhythm.due_in() == pytest.approx(ENDS_GATHER_FOR)
    clock.time += ENDS_GATHER_FOR / 2
    assert rhythm.ends_wait(may_wait=True)
    assert rhythm.due_in() == pytest.approx(ENDS_GATHER_FOR / 2)
    clock.time += ENDS_GATHER_FOR
    assert not rhythm.ends_wait(may_wait=True)
    assert rhythm.due_in() > 0
    assert rhythm.ends_wait(may_wait=True)


def test_ends_of_runs_are_written_at_once_where_they_make_room_or_must_not_wait():
    rhythm = Rhythm(sweep_every=5, look_every=1, clock=Clock())
    assert not rhythm.ends_wait(may_wait=True)
    rhythm.hold_until_others_move(rhythm.dispatch)
    assert rhythm.ends_wait(may_wait=True)
    assert not rhythm.ends_wait(may_wait=False)
    assert rhythm.due_in() == 1
