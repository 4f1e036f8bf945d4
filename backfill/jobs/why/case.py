"""What is known when a question is asked: the job, the servers as they were found, and the row that the question is about."""

from __future__ import annotations

from dataclasses import dataclass, field

from backfill.config import Settings
from backfill.dag import DAG
from backfill.jobs.backfill_job import BackfillJob
from backfill.jobs.why.answers import Held, TaskAnswer
from backfill.jobs.why.hindrances import BrokerView
from backfill.jobs.why.labels import label, task_name
from backfill.jobs.why.standing import Standing, read_standing
from backfill.store.database import Tx
from backfill.store.inspection import RunDateRow, TaskInstanceDetail
from backfill.store.jobs import JobRow


@dataclass(frozen=True, slots=True)
class JobTask:
    """A task of a job, of its DAG or of a subdag."""

    dag_id: str
    task_id: str
    #: Its name in sentences and commands: the task id; in a subdag the tasks that stand for it come before.
    name: str

    @property
    def subdag(self) -> str:
        """The id of the subdag that it stands for, if it stands for one (S13.1)."""
        return f"{self.dag_id}.{self.task_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A job about which something is asked."""

    row: JobRow
    #: The same, with its DAG where that could be loaded.
    job: BackfillJob
    settings: Settings
    #: Why the DAG could not be loaded, in one sentence.
    dag_trouble: str | None = None
    #: None: the job needs no broker.
    broker: BrokerView | None = None
    #: What `standing` has read, by transaction.
    _standings: dict[Tx, Standing] = field(default_factory=dict, repr=False)

    def standing(self, tx: Tx) -> Standing:
        """Return how the job stands by its rows, which are read once in a transaction; its DAG must be known."""
        if tx not in self._standings:
            self._standings[tx] = read_standing(tx, self.job, self.settings)
        return self._standings[tx]

    @property
    def chosen(self) -> list[str]:
        """The chosen tasks of the job's DAG in topological order."""
        return list(self.row.params.get("task_ids") or ())

    def task(self, dag_id: str, task_id: str) -> JobTask:
        """Return a task of the job with its name."""
        return JobTask(dag_id, task_id, task_name(self.row.dag_id, dag_id, task_id))

    def dag_of(self, task: JobTask) -> DAG | None:
        """Return the DAG of a task; None where that of the job could not be loaded."""
        dags = [] if self.job.dag is None else [self.job.dag, *self.job.dag.subdags]
        return next((dag for dag in dags if dag.dag_id == task.dag_id), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The task instance that a question is about, and the other ones of its run."""

    case: Case
    task: JobTask
    #: That of its DAG.
    date: RunDateRow
    ti: TaskInstanceDetail
    run_rows: tuple[TaskInstanceDetail, ...]

    @property
    def label(self) -> str:
        """Its name in sentences."""
        return label(self.task.name, self.date.logical_date, self.ti.map_index)

    @property
    def log_command(self) -> str:
        """The command that shows its log."""
        index = f" --map-index {self.ti.map_index}" if self.ti.map_index >= 0 else ""
        date = self.date.logical_date.isoformat().removesuffix("T00:00:00+00:00")
        return f"backfill logs {self.case.row.id} {self.task.name} {date}{index}"

    @property
    def stands_for_subdag(self) -> bool:
        """Whether the coordinator runs a subdag for it, and no worker has it (S13.2)."""
        return self.ti.operator == "SubDagOperator" and self.ti.attempt_id is None

    @property
    def tries(self) -> str:
        """Which try it is in, of how many."""
        return f"try {self.ti.try_number} of {max(self.ti.max_tries + 1, self.ti.try_number)}"

    def answer(self, held_by: Held, sentence: str, *remarks: str) -> TaskAnswer:
        """Return an answer about it."""
        return TaskAnswer(
            job_id=self.case.row.id,
            dag_id=self.task.dag_id,
            task_id=self.task.task_id,
            logical_date=self.date.logical_date,
            map_index=self.ti.map_index,
            state=self.ti.state,
            run_id=self.ti.run_id,
            try_number=self.ti.try_number,
            held_by=held_by,
            answer=sentence,
        ).remarking(*remarks)
