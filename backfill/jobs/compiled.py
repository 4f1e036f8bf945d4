"""A request compiled: the DAGs that a job is about, its own and its subdags', with what is chosen of them and the rows that runs get."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from backfill.dag import DAG
from backfill.dag.subset import chosen_tasks
from backfill.engine.family import Family, Windows
from backfill.engine.graph import Graph
from backfill.engine.options import Options
from backfill.engine.window import Window
from backfill.jobs.admission import templates_for
from backfill.jobs.request import BackfillRequest
from backfill.jobs.subdags import Subdag, order_of_tasks, subdags_of
from backfill.store.alignment import TaskTemplate


@dataclass(frozen=True)
class CompiledRequest:
    """The chosen tasks of a DAG and of its subdags, as `request` wants them judged."""

    dag: DAG
    request: BackfillRequest
    graph: Graph
    #: The rows that each run of the DAG should have.
    templates: tuple[TaskTemplate, ...]
    #: The subdags of chosen tasks, each followed by its own.
    subdags: tuple[Subdag, ...] = ()

    @classmethod
    def compile(cls, dag: DAG, request: BackfillRequest, queue: str) -> Self:
        """Compile what `request` chooses of `dag` (S13.6); `queue` is that of tasks that name none."""
        graph = compile_graph(dag, request)
        templates, subdags = templates_for(dag, graph, request, queue), subdags_of(dag, graph, request, queue)
        return cls(dag, request, graph, templates, subdags)

    # -- of all DAGs, by their ids: the job's own first -----------------------------------------------------------------

    @cached_property
    def members(self) -> Mapping[str, Subdag]:
        """The subdags by the ids of their DAGs."""
        return {each.dag.dag_id: each for each in self.subdags}

    @cached_property
    def dags(self) -> Mapping[str, DAG]:
        """The DAGs of the job."""
        return {self.dag.dag_id: self.dag, **{name: each.dag for name, each in self.members.items()}}

    @cached_property
    def graphs(self) -> Mapping[str, Graph]:
        """Their compiled forms."""
        return {self.dag.dag_id: self.graph, **{name: each.graph for name, each in self.members.items()}}

    @cached_property
    def templates_by_task(self) -> Mapping[tuple[str, str], TaskTemplate]:
        """By dag_id and task_id the row that a run gets for a task; one of them where that is mapped over literals."""
        named = [(self.dag.dag_id, self.templates), *((name, each.templates) for name, each in self.members.items())]
        return {(name, template.task_id): template for name, templates in named for template in templates}

    # -- of all DAGs together -------------------------------------------------------------------------------------------

    @cached_property
    def pools(self) -> list[str]:
        """The pools that tasks take slots of."""
        return sorted({pool for graph in self.graphs.values() for pool in graph.pools})

    @cached_property
    def limited_task_ids(self) -> list[str]:
        """Tasks with a limit of their own on what is in flight."""
        return sorted({name for graph in self.graphs.values() for name in graph.limited_task_ids})

    @property
    def rows_per_run(self) -> int:
        """How many task instances a run has with those of its subdags (an unexpanded mapped task counts 1)."""
        return len(self.templates) + sum(len(each.templates) for each in self.subdags)

    @property
    def order(self) -> list[tuple[str, str]]:
        """dag_id and task_id of all tasks in topological order."""
        return order_of_tasks(self.dag.dag_id, self.graph, self.subdags)

    def window(self) -> Windows:
        """Return an empty window for runs of all these DAGs."""
        branches = [each.branch for each in self.subdags]
        return Family(self.graph, branches) if branches else Window(self.graph)


def compile_graph(dag: DAG, request: BackfillRequest) -> Graph:
    """Return the graph of the tasks that `request` chooses (S13.6)."""
    chosen = chosen_tasks(dag, request.task_regex, request.ignore_dependencies)
    return Graph.compile(dag, chosen, options=engine_options(request))


def engine_options(request: BackfillRequest) -> Options:
    """Return what of `request` changes how dependencies are judged."""
    return Options(
        ignore_task_deps=request.ignore_task_deps,
        ignore_first_depends_on_past=request.ignore_first_depends_on_past,
        mark_success=request.mark_success,
        disable_retry=request.disable_retry,
        pool=request.pool,
    )
