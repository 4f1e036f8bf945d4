"""How the results of the benchmarks are kept, and how the table shows them."""

import json

import pytest

from benchmarks.measurement import Measurement, Mode, at_least, at_most, load_all, middle, missing, save
from benchmarks.page import page


def measured(*figures, key="latency", mode=Mode.FULL, **facts):
    return Measurement(
        key=key,
        title=f"About {key}",
        mode=mode,
        how="By looking.",
        figures=figures,
        sizes={"chain": 50},
        facts={"date": "2026-01-01", "packages": {"celery": "5.7.0"}, **facts},
        seconds=1.5,
    )


def table(*figures, mode=Mode.FULL):
    """Return the cells of the rows of `figures` in the page."""
    found = measured(*figures, mode=mode)
    text = page({mode: {found.key: found}}, [found.key])
    rows = [line for line in text.splitlines() if line.startswith(f"| {figures[0].name}")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_what_was_kept_is_what_is_read(tmp_path):
    kept = measured(
        middle("median", [1.0, 2.0], "ms", goal=at_most(10)), missing("peer", "×", "not here", goal=at_least(2))
    )
    save(kept, tmp_path)
    assert load_all(tmp_path, Mode.FULL) == {"latency": kept}


def test_a_quick_run_leaves_the_results_of_a_full_one_alone(tmp_path):
    full = save(measured(middle("median", [1.0], "ms")), tmp_path)
    quick = save(measured(middle("median", [9.0], "ms"), mode=Mode.QUICK), tmp_path)
    assert full != quick
    assert load_all(tmp_path, Mode.FULL)["latency"].figures[0].value == 1.0
    assert load_all(tmp_path, Mode.QUICK)["latency"].figures[0].value == 9.0


def test_every_sample_is_kept(tmp_path):
    file = save(measured(middle("median", [3.0, 1.0, 2.0], "ms")), tmp_path)
    [figure] = json.loads(file.read_text())["figures"]
    assert (figure["value"], figure["samples"]) == (2.0, [3.0, 1.0, 2.0])


def test_results_of_another_format_are_refused():
    with pytest.raises(ValueError, match="another format"):
        Measurement.from_json('{"format": 0}')


@pytest.mark.parametrize(
    ("goal", "value", "verdict"),
    [
        (at_least(5), 5.0, "met"),
        (at_least(5), 4.99, "**missed**"),
        (at_most(5), 5.0, "met"),
        (at_most(5), 5.01, "**missed**"),
    ],
)
def test_a_goal_is_met_on_its_bound_and_missed_beyond(goal, value, verdict):
    assert table(middle("ratio", [value], "×", goal=goal))[0][-1] == verdict


def test_a_row_has_goal_median_and_range():
    [row] = table(middle("ratio", [4.0, 7.0, 6.0], "×", goal=at_least(5)))
    assert row == ["ratio", "≥ 5 ×", "6 ×", "4 – 7", "met"]


def test_a_single_run_has_no_range():
    assert table(middle("ratio", [4.0], "×"))[0][3] == "one run"


def test_a_missing_peer_is_missing_and_neither_met_nor_missed():
    [row] = table(missing("against a peer", "×", "it is not installed", goal=at_least(600)))
    assert row == ["against a peer<br>it is not installed", "≥ 600 ×", "missing", "", "not measured"]


def test_a_figure_without_a_goal_gets_no_verdict():
    assert table(middle("ratio", [4.0], "×"))[0][-1] == ""


def test_a_measure_that_was_not_taken_is_said_to_be_missing():
    found = measured(middle("median", [1.0], "ms"))
    assert "| **idle** | | not run | | |" in page({Mode.FULL: {"latency": found}}, ["latency", "idle"])


def test_a_quick_run_says_that_its_sizes_are_small():
    quick = page({Mode.QUICK: {"latency": measured(middle("median", [1.0], "ms"), mode=Mode.QUICK)}}, ["latency"])
    assert "Small sizes" in quick
    assert "## Full run" not in quick
    assert "(chain 50)" in quick


def test_revisions_that_differ_between_measures_are_all_named():
    found = {key: measured(middle("m", [1.0], "ms"), key=key, revision=key[:3]) for key in ("latency", "idle")}
    assert "revision idl, lat" in page({Mode.FULL: found}, ["latency", "idle"])


def test_how_a_measure_was_taken_stands_below_the_table():
    text = page({Mode.FULL: {"latency": measured(middle("m", [1.0], "ms"))}}, ["latency"])
    assert "**About latency.** By looking." in text.partition("## How it is measured")[2]
