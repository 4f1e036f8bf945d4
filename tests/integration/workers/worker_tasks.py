"""Tasks that leave traces of what became of them, and an ear for the events that a runner publishes."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from worker_stage import Stage

from backfill import DAG
from backfill.messages import Attempt, ExecutorEvent
from backfill.operators import PythonOperator
from backfill.states import TaskInstanceState
from workers.runner import Runner

MakeRunner = Callable[..., Runner]
RunOne = RunDag = Callable[..., tuple[Stage, Attempt]]


class Events(list[ExecutorEvent]):
    """Keeps what the runner publishes."""

    def publish(self, _stream: str, events: Sequence[ExecutorEvent]) -> None:
        self.extend(events)

    def of(self, attempt: Attempt) -> list[TaskInstanceState]:
        return [event.state for event in self if event.attempt_id == attempt.attempt_id]


def one_task(function: Callable[..., Any], **arguments: Any) -> DAG:
    with DAG("sales", start_date=datetime(2024, 1, 1, tzinfo=UTC), schedule="@daily") as dag:
        PythonOperator(task_id="load", python_callable=function, **arguments)
    return dag


def journal_callbacks(journal: Path) -> dict[str, Any]:
    """Return callbacks that note their name, the state of the row and what the context tells."""

    def noting(name: str) -> Callable[[Any], None]:
        def note(context: Any) -> None:
            with journal.open("a") as file:
                file.write(f"{name}: {context['ti'].state} {context.get('exception')!r}\n")
            raise ValueError("a callback that fails changes nothing")

        return note

    names = ("execute", "success", "failure", "retry", "skipped")
    return {f"on_{name}_callback": noting(name) for name in names}
