"""What a fault is, and the list of all of them, which the modules `faults_of_…` fill."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from chaos_flights import FlightsPlan
from chaos_plans import Plan, random_plan
from chaos_scene import Scene


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One row of the table. `happen` starts a backfill, disturbs it in the middle, and waits for its end."""

    name: str
    happen: Callable[[Scene], None]
    #: Whether it is among those that every change has to pass.
    quick: bool
    #: Whether attempts may be lost, and with them ends that could not be written any more.
    kills: bool
    #: Pattern of the errors with which task instances may fail that would succeed without the fault.
    spoils: str
    #: Whether the job is ended before its work is done.
    cut_short: bool
    #: Makes the plan, given a seed.
    plan: Callable[[int], Plan | FlightsPlan]

    @property
    def seed(self) -> int:
        """The same in each run, and another for each fault."""
        return zlib.crc32(self.name.encode()) % 1000


FAULTS: list[Fault] = []


#: So that lost messages cannot be found by waiting: they have to be sent again when the broker is back.
PATIENT = {"task__queued_timeout": 600}


def slow_plan(seed: int) -> Plan:
    """Return a plan that takes long enough for a command to be started in the middle of it."""
    plan = random_plan(seed, days=12)
    return replace(
        plan, tasks=[replace(task, milliseconds=[4 * each for each in task.milliseconds]) for task in plan.tasks]
    )


def default_plan(seed: int) -> Plan:
    return random_plan(seed, doomed=seed % 2 == 0)


def fault(
    name: str,
    *,
    quick: bool = False,
    kills: bool = False,
    spoils: str = "",
    cut_short: bool = False,
    plan: Callable[[int], Plan | FlightsPlan] = default_plan,
) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    """Enter the decorated function into the list of faults."""

    def enter(happen: Callable[[Scene], None]) -> Callable[[Scene], None]:
        FAULTS.append(
            Fault(name=name, happen=happen, quick=quick, kills=kills, spoils=spoils, cut_short=cut_short, plan=plan)
        )
        return happen

    return enter
