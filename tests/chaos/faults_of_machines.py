"""A worker's disk is full, its DAG file is gone or another one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from chaos_faults import fault, slow_plan
from chaos_plans import Plan
from chaos_scene import Scene
from processes import Command
from waiting import wait_until

#: Mounts a small file system on the folder $1 that only the command which follows sees.
WITH_A_SMALL_DISK = 'mount -t tmpfs -o size=256k small "$0" && exec "$@"'
DIFFERS = r"differs from the one that the job was made with"
CANNOT_BE_WRITTEN = r"The log .* cannot be written: No space left on device"


def plan_without_retries(seed: int) -> Plan:
    """Return a plan in which an ordinary failure is final: a worker that cannot load a DAG does not know its delays either."""
    plan = slow_plan(seed)
    return replace(plan, tasks=[replace(task, retries=0, failing_tries=[0]) for task in plan.tasks])


@fault("the disk for a worker's logs is full for a while", spoils=CANNOT_BE_WRITTEN, plan=plan_without_retries)
def the_disk_is_full(scene: Scene) -> None:
    """What runs does not notice; what begins then fails, and says why."""
    folder = scene.here / "logs"
    folder.mkdir()
    scene.start_workers(1)
    worker = _start_worker_with_a_small_disk(scene, folder)
    run = scene.run()
    filler = Path(f"/proc/{worker.process.pid}/root{folder}/filler")
    with scene.strike():
        _fill(filler)
    wait_until(lambda: _failed_attempts(scene, CANNOT_BE_WRITTEN), "an attempt has failed for that")
    filler.unlink()
    scene.expect_end(run, spoiled=True)


def _start_worker_with_a_small_disk(scene: Scene, folder: Path) -> Command:
    own_mounts = ["unshare", "-m" if os.geteuid() == 0 else "-rm"]
    if subprocess.run([*own_mounts, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a file system of his own")
    command = [*own_mounts, "sh", "-c", WITH_A_SMALL_DISK, str(folder)]
    command += [sys.executable, "-m", "backfill", "worker", "-c", "2"]
    worker = scene.start_program(command, "worker", worker__log_folder=folder)
    scene.await_workers([worker])
    return worker


def _fill(file: Path) -> None:
    """Take all that is free, to the last byte."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for size in (4096, 1):
        with pytest.raises(OSError, match="No space left"):
            _write_for_ever(descriptor, b"x" * size)
    os.close(descriptor)


def _write_for_ever(descriptor: int, data: bytes) -> None:
    while True:
        os.write(descriptor, data)


@fault("the DAG file is deleted, and the job does not need it")
def the_dag_file_is_deleted(scene: Scene) -> None:
    """Also a worker that begins then runs what the job was made with."""
    scene.start_workers(1)
    run = scene.run()
    with scene.strike():
        for file in scene.settings.core.dags_folder.iterdir():
            file.unlink()
    scene.start_workers(1)
    scene.expect_end(run)


@fault("the DAG file is changed, and workers import it (-x)", spoils=DIFFERS, plan=plan_without_retries)
def the_dag_file_is_changed(scene: Scene) -> None:
    """What has imported it before goes on; a worker that begins then refuses it, and says why."""
    scene.start_workers(1)
    run = scene.run("-x")
    file = scene.settings.core.dags_folder / "chaos.py"
    with scene.strike():
        before = file.read_text()
        file.write_text(f"{before}\n# another version\n")
    scene.start_workers(1)
    wait_until(lambda: _failed_attempts(scene, DIFFERS), "an attempt has failed for that")
    file.write_text(before)
    scene.expect_end(run, spoiled=True)


@fault("the DAG file is deleted, and workers import it (-x)", spoils=r"chaos", plan=plan_without_retries)
def the_needed_dag_file_is_deleted(scene: Scene) -> None:
    scene.start_workers(1)
    run = scene.run("-x")
    file = scene.settings.core.dags_folder / "chaos.py"
    with scene.strike():
        before = file.read_text()
        file.unlink()
    scene.start_workers(1)
    wait_until(lambda: _failed_attempts(scene, "chaos"), "an attempt has failed for that")
    file.write_text(before)
    scene.expect_end(run, spoiled=True)


def _failed_attempts(scene: Scene, pattern: str) -> list[object]:
    return scene.rows.ask("select 1 from task_attempt where error ~ :pattern", pattern=pattern)
