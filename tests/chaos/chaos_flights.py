"""The example, a few days of it, with a journal."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from chaos_plans import IMPORT, Ending, Key, with_note

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TASKS = ("extract", "check", "by_carrier", "by_origin", "by_weather", "load", "add_to_total")
#: Follows the example; its last line makes the DAG.
JOURNAL = """
def noted(event):
    return [lambda context: note({journal!r}, context["ti"], event)]


for each in journaled.tasks:
    each.on_execute_callback = noted("start")
    each.on_success_callback = noted("end")
    each.on_retry_callback = each.on_failure_callback = noted("fail")
"""


@dataclass(frozen=True)
class FlightsPlan:
    days: int = 12
    dag_id: str = "flights"

    def date(self, day: int) -> str:
        return f"2013-01-{day:02}"

    def endings(self) -> dict[Key, Ending]:
        return {Key(task, day, -1): Ending("success", 1) for task in TASKS for day in range(1, self.days + 1)}

    def install(self, dags_folder: Path, journal: Path) -> None:
        for name in ("flights_data.py", "flights_warehouse.py"):
            shutil.copy(EXAMPLES / name, dags_folder)
        example = (EXAMPLES / "flights.py").read_text().rstrip().removesuffix("flights()")
        own = f"{IMPORT}{example}journaled = flights()\n{JOURNAL.format(journal=str(journal))}"
        (dags_folder / "flights.py").write_text(with_note(own))
