"""Questions about the job of a playhouse, asked as another process would ask them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from playhouse import Playhouse, day
from sqlalchemy import text

from backfill import DAG
from backfill.coordinator.inquiry import Inquirer
from backfill.exceptions import ServiceUnavailable
from backfill.jobs.why import JobAnswer, Question, TaskAnswer


def no_broker() -> str:
    raise ServiceUnavailable("The broker does not answer.")


@dataclass(frozen=True)
class Interview:
    """Asks about one job; `broker` finds the URL of its broker."""

    house: Playhouse
    job_id: int
    dag: DAG
    broker: Callable[[], str] = no_broker

    @property
    def inquirer(self) -> Inquirer:
        return Inquirer(
            engine=self.house.engine,
            settings=self.house.stage.settings,
            load_dag=lambda _: self.dag,
            reach_broker=self.broker,
        )

    def about(self, task_id: str, number: int = 1, map_index: int | None = None) -> TaskAnswer:
        """Ask about the task instance of a task on a day of January 2024."""
        answer = self.inquirer.why(self.job_id, Question(task_id, day(number), map_index))
        assert isinstance(answer, TaskAnswer)
        return answer

    def said(self, task_id: str, number: int = 1, map_index: int | None = None) -> str:
        return self.about(task_id, number, map_index).answer

    def about_job(self, task_id: str | None = None) -> JobAnswer:
        answer = self.inquirer.why(self.job_id, None, task_id)
        assert isinstance(answer, JobAnswer)
        return answer

    def with_settings(self, **values: Any) -> Interview:
        settings = self.house.stage.settings.override("the test", {k.replace("__", "."): v for k, v in values.items()})
        return replace(self, house=replace(self.house, stage=replace(self.house.stage, settings=settings)))

    def write(self, sql: str, **values: Any) -> None:
        with self.house.engine.begin() as tx:
            tx.execute(text(sql), values)
