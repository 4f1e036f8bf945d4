"""The benchmarks run as `make bench` runs them, with small sizes; no figure is held against anything."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import make_home

from benchmarks.measurement import Mode, load_all

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def homes() -> Iterator[Path]:
    """A folder for homes of servers that also their own user may enter."""
    folder = make_home()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_measures_leave_results_a_page_and_nothing_else(tmp_path: Path, homes: Path):
    results, page = tmp_path / "results", tmp_path / "page.md"
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", "--quick", "--only", "latency,idle,scale"),
            *("--results", str(results), "--page", str(page)),
        ],
        cwd=ROOT,
        env={**os.environ, "BENCH_FOLDER": str(homes), "BENCH_LARGE": "2000"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    found = load_all(results, Mode.QUICK)
    assert set(found) == {"latency", "idle", "scale"}
    for measurement in found.values():
        assert all(figure.value is not None for figure in measurement.figures)
        assert measurement.facts["postgresql"]["fsync"] == "on"
    assert load_all(results, Mode.FULL) == {}
    assert "## Quick run" in page.read_text()
    assert list(homes.iterdir()) == []
