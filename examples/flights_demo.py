"""`make demo`: backfill January 2013, show what is in the warehouse then, and how the job went.

Everything it needs is started by it, kept in $BACKFILL_HOME and stopped at the end. One that was killed is gone on with by the next.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from backfill.config import load_settings
from backfill.embedded import Servers
from backfill.exceptions import BackfillError, Interrupted, JobHeld

HERE = Path(__file__).parent
JANUARY = ("-s", "2013-01-01", "-e", "2013-01-31")
#: Short, so that the next demo does not wait long for the lease and the tasks of one that was killed. In seconds.
SETTINGS = {"COORDINATOR__HEARTBEAT_INTERVAL": "1", "TASK__HEARTBEAT_INTERVAL": "1", "TASK__HEARTBEAT_TIMEOUT": "10"}
#: A job that nobody drives any more.
UNFINISHED = {"queued", "running", "paused"}


def main() -> int:
    """Run the demo and return its exit code."""
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the command that runs, which says how to go on
    use_own_settings()
    with Servers(load_settings().core.home) as servers:
        servers.acquire()  # kept between the commands, each of which would else start and stop them
        jobs = json.loads(backfill("list", "-o", "json", show=False))
        unfinished = bool(jobs) and jobs[0]["state"] in UNFINISHED
        code, job_id = go_on(jobs[0]["job_id"]) if unfinished else run(again=bool(jobs))
        if code == Interrupted.exit_code:
            return code
        subprocess.run([sys.executable, str(HERE / "flights_report.py")], check=True)
        sys.stdout.write(backfill("status", str(job_id)))
    return code


def use_own_settings() -> None:
    """Leave out what is set for other uses, so that the demo is the same everywhere."""
    for name in [name for name in os.environ if name.startswith("BACKFILL__") or name == "WAREHOUSE_URL"]:
        del os.environ[name]
    os.environ.update({f"BACKFILL__{name}": value for name, value in SETTINGS.items()})


def run(*, again: bool) -> tuple[int, int]:
    """Backfill January, also if that was done before; return exit code and job (0 if none was made)."""
    arguments = [
        "run",
        os.path.relpath(HERE / "flights.py"),
        *JANUARY,
        *(["--reprocess", "completed"] if again else []),
    ]
    finished = call(*arguments, "-o", "json")
    return finished.returncode, json.loads(finished.stdout)["job_id"] if finished.stdout else 0


def go_on(job_id: int) -> tuple[int, int]:
    """Resume the job of a demo that was killed, once its lease has run out; return exit code and job."""
    deadline = time.monotonic() + 2 * load_settings().lease_timeout.total_seconds()
    while True:
        finished = call("resume", str(job_id))
        if finished.returncode != JobHeld.exit_code or time.monotonic() > deadline:
            return finished.returncode, job_id
        time.sleep(1)


def backfill(*arguments: str, show: bool = True) -> str:
    """Return what a command prints; raises `CalledProcessError` if it fails."""
    finished = call(*arguments, show=show)
    finished.check_returncode()
    return finished.stdout


def call(*arguments: str, show: bool = True) -> Any:
    """Run a command with its progress on the terminal; what it prints is kept."""
    if show:
        sys.stdout.write(f"\n$ backfill {' '.join(arguments)}\n")
        sys.stdout.flush()
    command = [sys.executable, "-m", "backfill", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BackfillError as error:
        sys.exit(str(error))
