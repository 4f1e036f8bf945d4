"""The benchmarks run as `make bench` runs them, with small sizes; no figure is held against anything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.measurement import Mode, load_all

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_measures_leave_results_a_page_and_nothing_else(tmp_path: Path):
    results, page, folder = tmp_path / "results", tmp_path / "page.md", tmp_path / "homes"
    folder.mkdir()
    for parent in (folder, *folder.parents):  # the database's own user passes through here
        if parent.owner() == Path.home().owner() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", "--quick", "--only", "latency,idle,scale"),
            *("--results", str(results), "--page", str(page)),
        ],
        cwd=ROOT,
        env={**os.environ, "BENCH_FOLDER": str(folder), "BENCH_LARGE": "2000"},
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
    assert list(folder.iterdir()) == []
