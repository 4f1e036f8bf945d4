"""The package installed as the Dockerfile does it: from the files that it copies, without what development needs.

pytest brings packages that the program needs to declare itself; only an environment without it shows that.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

DAG_FILE = """
from datetime import datetime
from backfill import DAG, task

@task
def say(day: str) -> str:
    return f"it was {day}"

with DAG("days", schedule="@daily", start_date=datetime(2024, 1, 1)):
    say("{{ ds }}")
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of an environment in which only the package is installed."""
    folder = tmp_path_factory.mktemp("installation")
    source = folder / "source"
    source.mkdir()
    build_stage = (ROOT / "Dockerfile").read_text().split("\nFROM ")[1]
    for names, target in re.findall(r"^COPY (.*) (\S+)$", build_stage, re.MULTILINE):
        for name in names.split():
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / target)
            else:
                shutil.copy(ROOT / name, source / target)
    subprocess.run([sys.executable, "-m", "venv", folder / "environment"], check=True)
    bin_folder = folder / "environment" / "bin"
    install = [bin_folder / "python", "-m", "pip", "--quiet", "install", f"{source}[embedded]"]
    subprocess.run(install, check=True)
    return bin_folder


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_installed_program_backfills_a_dag(programs: Path, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "days.py"
    file.write_text(DAG_FILE)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "BACKFILL_HOME": str(home)}
    finished = subprocess.run(
        [programs / "backfill", "run", str(file), "-s", "2024-01-01", "-e", "2024-01-03", "-o", "json"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["runs"]["success"] == 3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_environment_has_nothing_that_only_development_needs(programs: Path) -> None:
    looked_up = (
        "import importlib.util as u; print([n for n in ('pytest', 'mypy', 'ruff', 'hypothesis') if u.find_spec(n)])"
    )
    found = subprocess.run([programs / "python", "-c", looked_up], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_types_travel_with_the_package(programs: Path) -> None:
    where = "import backfill, pathlib; print(pathlib.Path(backfill.__file__).with_name('py.typed').exists())"
    found = subprocess.run([programs / "python", "-c", where], capture_output=True, text=True, check=True, cwd="/")
    assert found.stdout.strip() == "True"
