"""The calculation of what the design does with many workers."""

import pytest

from benchmarks.capacity import Assumptions, loads, measured, text
from benchmarks.measurement import Measurement, Mode, middle

SMALL = Assumptions(
    workers=10,
    children=10,
    max_connections=200,
    heartbeat_interval=10,
    coordinator_ms=1,
    coordinator_rate=2_000,
    commits=2,
    commits_per_second=1_000,
    messages=3,
    messages_per_second=10_000,
)


def test_a_load_is_what_is_asked_of_a_part_by_what_it_bears():
    # 100 slots with tasks of one second: 100 a second, each with two commits, and ten heartbeats
    found = {load.part: load.share for load in loads(SMALL, 1)}
    assert found["commits"] == pytest.approx((100 * 2 + 10) / 1_000)
    assert found["broker messages"] == pytest.approx(100 * 3 / 10_000)
    assert found["database connections"] == pytest.approx(100 / 200)


def test_the_coordinator_bears_what_the_slower_of_its_cpu_and_its_rounds_allows():
    found = {load.part: load.share for load in loads(SMALL, 1)}
    assert found["coordinator, one job"] == pytest.approx(100 / 1_000)


def test_the_most_loaded_part_comes_first():
    shares = [load.share for load in loads(SMALL, 0.1)]
    assert shares == sorted(shares, reverse=True)


def test_what_was_measured_takes_the_place_of_the_defaults():
    scale = Measurement(
        key="scale",
        title="",
        mode=Mode.FULL,
        how="",
        sizes={},
        figures=[
            middle("task instances per second against a peer", [1.1], "×"),
            middle("task instances per second", [700], "1/s"),
        ],
    )
    assert measured({"scale": scale}).coordinator_rate == 700
    assert measured({}) == Assumptions()


def test_the_page_has_a_row_for_each_duration():
    told = text(SMALL)
    assert [line.split("|")[1].strip() for line in told.splitlines() if line.startswith("| ") and " s |" in line] == [
        f"{seconds:g} s" for seconds in SMALL.durations
    ]
