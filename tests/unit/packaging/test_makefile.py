"""The Makefile's doors open, as far as that can be seen without walking through them."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from project import ROOT, read

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed here")


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkout in which nothing was made yet, as far as make can tell."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_help_lists_every_target() -> None:
    targets = set(re.findall(r"^\.PHONY: (.*)$", read("Makefile"), re.MULTILINE)[0].split())
    listed = {line.split()[1] for line in make().stdout.splitlines()}
    assert listed == targets
    assert {"help", "setup", "demo", "check", "test", "test-slow", "format", "clean"} <= targets


def test_ci_does_what_the_readme_tells_people_to_do() -> None:
    assert [line for line in read(".ci/run").splitlines() if line.startswith("make ")] == [
        "make check",
        "make test || make test-failed",
    ]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_a_python_that_is_missing_or_too_old_gets_one_sentence(copy: Path) -> None:
    missing = make("setup", "PYTHON=/nonexistent/python", folder=copy)
    assert missing.returncode != 0
    assert "There is no /nonexistent/python here; install Python 3.11 or newer" in missing.stderr
    old = copy / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.9.2" || exit 1\n')
    old.chmod(0o755)
    refused = make("setup", f"PYTHON={old}", folder=copy)
    assert refused.returncode != 0
    assert f"{old} is Python 3.9.2; this needs Python 3.11 or newer" in refused.stderr
    assert not (copy / ".venv").exists()


def installs(folder: Path, target: str) -> bool:
    planned = make("--dry-run", target, folder=folder)
    assert planned.returncode == 0, planned.stderr
    return "pip" in planned.stdout and " install " in planned.stdout


def test_things_are_installed_again_only_when_pyproject_changed(copy: Path) -> None:
    environment = copy / ".venv"
    environment.mkdir()
    assert installs(copy, "test")
    for mark in (".made", ".for-demo", ".for-dev"):
        (environment / mark).touch()
    assert not any(installs(copy, target) for target in ("setup", "test", "check", "demo"))
    later = (environment / ".for-dev").stat().st_mtime + 10
    os.utime(copy / "pyproject.toml", (later, later))
    assert all(installs(copy, target) for target in ("setup", "test", "check", "demo"))


def test_the_demo_installs_less_than_development_needs(copy: Path) -> None:
    assert "'.[embedded,examples]'" in make("--dry-run", "demo", folder=copy).stdout
    assert "'.[dev]'" in make("--dry-run", "test", folder=copy).stdout
