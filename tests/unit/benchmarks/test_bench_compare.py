"""The table that sets two checkouts beside each other."""

from benchmarks.compare import table
from benchmarks.measures.throughput import OurSide


def side(rate: float, **cpu: float) -> OurSide:
    return OurSide(rate=rate, command=1, commits=2, cpu=cpu)


def test_both_sides_are_shown_by_their_medians():
    other = [side(10, worker=3, Valkey=1), side(30, worker=5, Valkey=1), side(20, worker=4, Valkey=1)]
    this = [side(100, worker=1, Valkey=0.5)]
    assert table(other, this).splitlines()[2:] == [
        "| task instances per second | 20 | 100 |",
        "| commits by the task instance | 2 | 2 |",
        "| CPU by the task instance, ms | 5 | 1.5 |",
        "| of it worker | 4 | 1 |",
        "| of it Valkey | 1 | 0.5 |",
    ]
