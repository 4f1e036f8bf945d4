"""A busy backfill: real workers, coordinators and servers, and a plan by which its task instances have to end."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from chaos_flights import FlightsPlan
from chaos_plans import Key, Plan
from chaos_servers import FragileServers
from chaos_verdict import Entry, Verdict, count_lines, judge, read_journal, read_rows, seconds_to_recover
from gates import Gate
from processes import Command, Processes, Rows
from sqlalchemy.exc import OperationalError
from waiting import wait_until

from backfill.config import Settings

#: Short, but long enough for two busy cores.
QUICK = {
    "task.heartbeat_interval": "0.5",
    "task.heartbeat_timeout": "6",
    "task.queued_timeout": "5",
    "coordinator.heartbeat_interval": "0.5",
    "worker.soft_shutdown_timeout": "1",
}
#: Seconds within which a disturbed backfill has to end, whatever became of it.
PATIENCE = 150
#: The part of the work after which the fault strikes.
EARLIEST, LATEST = 0.1, 0.45
#: A worker whose clock is off by as many seconds as its argument says.
WORKER_WITH_A_WRONG_CLOCK = """
import sys, time, time_machine
time_machine.travel(time.time() + float(sys.argv.pop(1)), tick=True).start()
from backfill.cli.main import main
sys.exit(main())
"""


class Scene(Processes):
    """Starts what a fault needs, finds the moment at which it strikes, and judges what came of it."""

    def __init__(
        self, servers: FragileServers, database_url: str, here: Path, plan: Plan | FlightsPlan, seed: int
    ) -> None:
        self.servers = servers
        self.plan = plan
        self.random = random.Random(seed)
        self.rows = Rows(database_url)
        self.journal_file = here / "journal"
        self.endings = plan.endings()
        self.workers: list[Command] = []
        self._at_the_end = contextlib.ExitStack()
        self._in_flight: list[Key] = []
        self._struck_at = 0.0
        where = {
            "core.home": here / "home",
            "core.dags_folder": here / "dags",
            "database.url": database_url,
            "celery.broker_url": servers.broker_url,
        }
        super().__init__(Settings().override("the test", {**QUICK, **where}), here)
        self.settings.core.dags_folder.mkdir()
        plan.install(self.settings.core.dags_folder, self.journal_file)

    def close(self) -> None:
        super().close()
        self._at_the_end.close()
        self.rows.engine.dispose()

    # -- processes ------------------------------------------------------------------------------------------------------

    def start_workers(self, number: int = 2, processes: int = 2, **settings: object) -> list[Command]:
        """Start workers side by side and return them when all of them listen."""
        new = [self.start("worker", "-c", str(processes), **settings) for _ in range(number)]
        self.await_workers(new)
        return new

    def start_worker_with_a_wrong_clock(self, seconds: float) -> Command:
        command = [sys.executable, "-c", WORKER_WITH_A_WRONG_CLOCK, str(seconds), "worker", "-c", "2"]
        return self.start_program(command, "worker")

    def start_worker_with_little_memory(self, size: int) -> Command:
        """Start a worker of which no process may have more than `size` bytes of address space."""
        limited = f'ulimit -v {size // 1024} && exec "$@"'
        command = ["/bin/sh", "-c", limited, "sh", sys.executable, "-m", "backfill", "worker", "-c", "2"]
        return self.start_program(command, "worker")

    def await_workers(self, new: Sequence[Command]) -> None:
        self.workers += new
        for worker in new:
            wait_until(
                lambda worker=worker: "Ctrl-C stops it" in worker.told or worker.process.poll() is not None,
                "the worker listens",
            )
            assert worker.process.poll() is None, worker.told

    def run(self, *flags: str, **settings: object) -> Command:
        return self.start("run", *self._range, "--workers", "0", *flags, **settings)

    def submit(self, *flags: str) -> None:
        submitted = self.do("submit", *self._range, *flags)
        assert submitted.end() == 0, submitted.told

    def resume(self, **settings: object) -> Command:
        return self.start("resume", str(self.rows.job.id), **settings)

    def gate(self, target: Path) -> Gate:
        return self._at_the_end.enter_context(Gate(target))

    def through(self, database: Gate | None = None, broker: Gate | None = None) -> dict[str, object]:
        """Return the settings of a process that reaches the servers through gates."""
        found: dict[str, object] = {}
        if database:
            url = self.rows.engine.url.set(host="127.0.0.1", port=database.port, query={})
            found["database__url"] = url.render_as_string(hide_password=False)
        if broker:
            found["celery__broker_url"] = f"redis://127.0.0.1:{broker.port}/0"
        return found

    @property
    def _range(self) -> list[str]:
        return [self.plan.dag_id, "-s", self.plan.date(1), "-e", self.plan.date(self.plan.days), *_GO_ON]

    # -- the moment -----------------------------------------------------------------------------------------------------

    def journal(self) -> list[Entry]:
        return read_journal(self.journal_file)

    def count(self, event: str) -> Counter[Key]:
        return Counter(entry.key for entry in self.journal() if entry.event == event)

    def at_work(self) -> list[Entry]:
        """Return the first line of each attempt that has neither ended nor died, as far as the journal says."""
        begun: dict[tuple[str, int], Entry] = {}
        for entry in self.journal():
            if entry.event == "start":
                begun[entry.attempt_id, entry.pid] = entry
            elif entry.event != "tick":
                begun.pop((entry.attempt_id, entry.pid), None)
        return [entry for entry in begun.values() if Path(f"/proc/{entry.pid}").exists()]

    def wait_for_work(self, part: float) -> None:
        """Wait until that part of all the lines is in the journal that the plan leads to."""
        lines = max(1, round(2 * part * sum(ending.tries for ending in self.endings.values())))
        wait_until(
            lambda: count_lines(self.journal_file) >= lines and self.at_work(),
            f"{lines} lines are in the journal, and somebody is at work",
            timeout=90,
        )

    @contextlib.contextmanager
    def strike(self) -> Iterator[None]:
        """Do the body at the moment that the seed has chosen, and remember what was in flight."""
        self.wait_for_work(self.random.uniform(EARLIEST, LATEST))
        self._in_flight = [key for key, row in read_rows(self.rows.ask).items() if row.state in {"queued", "running"}]
        self._struck_at = time.clock_gettime(time.CLOCK_BOOTTIME)
        yield

    def other_database(self, name: str) -> Rows:
        """Return what another database of the same server says, until the end."""
        url = self.rows.engine.url.set(database=name)
        rows = Rows(url.render_as_string(hide_password=False))
        self._at_the_end.callback(rows.engine.dispose)
        return rows

    def pause(self, seconds: float) -> None:
        """Let a fault last for a while: the time is what it is about."""
        time.sleep(seconds)

    # -- the end --------------------------------------------------------------------------------------------------------

    def expect_end(self, command: Command, *, spoiled: bool = False) -> None:
        """Wait for the command that drives the job; where nothing was `spoiled` its exit code is that of the plan."""
        code = command.end(PATIENCE)
        failing = any(ending.state == "failed" for ending in self.endings.values())
        assert code == int(failing) or (spoiled and code == 1), command.told

    def expect_end_of_job(self) -> None:
        wait_until(lambda: self.job_state() in {"success", "failed"}, "the job has ended", timeout=PATIENCE)

    def job_state(self) -> str:
        with contextlib.suppress(OperationalError):  # the server may be away
            return str(self.rows.job.state)
        return "unknown"

    def stop_workers(self) -> None:
        """Stop the workers, so that nobody writes to the journal any more."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.send(signal.SIGCONT)
                worker.send(signal.SIGTERM)
        for worker in self.workers:
            worker.end()

    def judge(self, spoils: str = "", *, cut_short: bool = False) -> Verdict:
        return judge(self.endings, self.journal(), read_rows(self.rows.ask), spoils=spoils, cut_short=cut_short)

    def seconds_to_recover(self) -> float:
        return seconds_to_recover(self._in_flight, self._struck_at, self.journal())


#: The plan wants some tasks to fail: the other dates go on.
_GO_ON = ("--continue-on-failures",)


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def signal_group(command: Command, number: signal.Signals) -> None:
    """Send a signal to the process and its children, as if it happened to their machine."""
    os.killpg(command.process.pid, number)
