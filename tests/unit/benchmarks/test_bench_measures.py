"""Every measure says how it is taken, and one that cannot be taken says that."""

import threading

import pytest

from benchmarks.__main__ import main, take
from benchmarks.measurement import Mode, load_all
from benchmarks.measures import MEASURES, airflow


class Scripted:
    """A measure that does as it is told."""

    KEY = "scripted"
    TITLE = "Scripted"
    LIMITS = {Mode.FULL: 0.05, Mode.QUICK: 60}  # noqa: RUF012
    __doc__ = "Title.\n\nHow it is measured."

    def __init__(self, work):
        self._work = work

    def measure(self, ground, mode):
        return self._work(ground, mode)


class Nowhere:
    """A ground on which nothing stands."""

    def empty(self):
        pass


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_every_measure_tells_how_it_is_taken_and_stops_by_itself(measure):
    title, _, how = (measure.__doc__ or "").partition("\n\n")
    assert title.endswith(".")
    assert len(how) > 100
    assert set(measure.LIMITS) == set(Mode)
    assert all(limit > 0 for limit in measure.LIMITS.values())


def test_without_airflow_the_peer_is_missing_and_nothing_is_started(monkeypatch):
    monkeypatch.delenv("AIRFLOW_BIN", raising=False)
    [figure] = airflow.measure(None, Mode.FULL).figures
    assert (figure.value, figure.samples, figure.met) == (None, (), None)
    assert "AIRFLOW_BIN" in figure.note


def test_a_measure_that_takes_too_long_is_given_up_and_keeps_the_last_result(tmp_path, capsys):
    never = Scripted(lambda *_: threading.Event().wait(60))
    assert not take(Nowhere(), never, Mode.FULL, tmp_path)
    assert "it took longer than its limit of 0.05 s" in capsys.readouterr().err
    assert load_all(tmp_path, Mode.FULL) == {}


def test_a_folder_for_homes_that_does_not_exist_is_one_sentence(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("BENCH_FOLDER", str(tmp_path / "nowhere"))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["benchmarks", "--only", "idle", "--page", str(tmp_path / "page.md")])
    assert main() == 2
    told = capsys.readouterr().err
    assert (
        told
        == f"Error: BENCH_FOLDER names '{tmp_path / 'nowhere'}', which is no folder: make it, or name another one.\n"
    )
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_benchmark_itself_is_not_hidden(tmp_path):
    def broken(*_):
        raise KeyError("no such figure")

    with pytest.raises(KeyError):
        take(Nowhere(), Scripted(broken), Mode.QUICK, tmp_path)
