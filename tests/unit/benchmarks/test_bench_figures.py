"""The statistics of the benchmarks."""

import pytest
from hypothesis import given, strategies as st

from benchmarks.figures import median, percentile, ratios, spread

SAMPLES = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=50)


def test_the_median_of_an_even_number_of_samples_lies_between_the_two_in_the_middle():
    assert median([4.0, 1.0, 3.0, 2.0]) == 2.5


def test_the_99th_percentile_of_a_hundred_samples_leaves_one_above():
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0


def test_the_99th_percentile_of_few_samples_is_the_largest():
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0


@given(SAMPLES, st.floats(0, 1))
def test_a_percentile_is_a_sample_and_at_least_that_share_does_not_exceed_it(samples, share):
    found = percentile(samples, share)
    assert found in samples
    assert sum(sample <= found for sample in samples) >= share * len(samples) - 1e-9


def test_a_share_beyond_all_samples_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1, not 99"):
        percentile([1.0], 99)


def test_ratios_are_taken_pair_by_pair():
    assert ratios([10.0, 30.0], [5.0, 10.0]) == [2.0, 3.0]


def test_sides_that_were_measured_unequally_often_are_no_pairs():
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


@given(SAMPLES)
def test_the_median_lies_within_the_spread(samples):
    smallest, largest = spread(samples)
    assert smallest <= median(samples) <= largest


@pytest.mark.parametrize("statistic", [median, spread, lambda samples: percentile(samples, 0.5)])
def test_nothing_is_made_up_where_nothing_was_measured(statistic):
    with pytest.raises(ValueError, match="no samples"):
        statistic([])
