"""The compiled DAG: tasks as numbers in topological order, with everything that a run asks of them worked out once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from math import prod

from backfill.dag import DAG
from backfill.dag.abstract_operator import AbstractOperator
from backfill.dag.expand_input import ExpandInput
from backfill.engine.codes import FAILED, SKIPPED, SUCCESS, UPSTREAM_FAILED
from backfill.engine.kinship import Kinship, kinship, mappings
from backfill.engine.options import Options
from backfill.engine.relations import (
    Relations,
    effective_leaves,
    effective_weights,
    indirect_setups,
    relate,
    skip_deciders,
)
from backfill.engine.rules import AT_ONCE
from backfill.keys import UNMAPPED
from backfill.states import TriggerRule


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """One chosen task. Other tasks are named by their number; all of them are chosen ones."""

    #: Its own number: its place in topological order.
    index: int
    task_id: str
    rule: TriggerRule
    #: Effective weight (S5.5).
    weight: int
    pool: str
    pool_slots: int
    max_active_tis_per_dag: int | None
    max_active_tis_per_dagrun: int | None
    is_setup: bool
    is_teardown: bool
    #: Nothing of it needs a worker: it becomes `success` when its dependencies are met (S3.6, S7.2).
    settles_itself: bool
    #: A `SubDagOperator`: the coordinator starts it (S3.24).
    is_subdag: bool

    #: Direct upstream tasks, and the setups among them.
    upstream: tuple[int, ...]
    direct_setups: tuple[int, ...]
    #: Tasks that may decide to skip it (S4.8), relevant indirect setups (S4.6).
    deciders: tuple[int, ...]
    indirect_setups: tuple[int, ...]

    #: Tasks whose run before must have ended well (S4.9): none, itself, or itself and its direct downstream tasks.
    past: tuple[int, ...]
    ignore_first_depends_on_past: bool
    start_date: datetime | None

    #: What it is mapped over: its mapped groups, outermost first, then its own; empty if it is not mapped.
    mappings: tuple[ExpandInput, ...]
    #: Number of indexes, if it stands in the DAG.
    literal_length: int | None
    #: Tasks whose return values give the length.
    sources: tuple[int, ...]

    @property
    def is_mapped(self) -> bool:
        """Whether it, or a group that it is in, is mapped."""
        return bool(self.mappings)

    @property
    def is_dynamic(self) -> bool:
        """Whether its number of indexes is known only in a run."""
        return self.is_mapped and self.literal_length is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """The chosen tasks of a DAG, compiled (S13.6)."""

    dag_id: str
    options: Options
    max_active_tasks: int | None
    tasks: tuple[TaskSpec, ...]
    #: Number of each task id.
    index: Mapping[str, int]
    #: Pairs of tasks with a common mapped group, in both directions (S4.5).
    kin: Mapping[tuple[int, int], Kinship]

    #: Direct downstream tasks: those all of whose task instances look at all of this task's, and kin.
    wide_down: tuple[tuple[int, ...], ...]
    kin_down: tuple[tuple[int, ...], ...]
    kin_up: tuple[tuple[int, ...], ...]
    #: Whether a task has kin among the tasks that it looks at: then its task instances are judged one by one.
    has_kin: tuple[bool, ...]
    #: By code: of `wide_down`, those whose rule that end may decide at once.
    at_once: Mapping[int, tuple[tuple[int, ...], ...]]
    #: Tasks whose counts among kin are made anew when this one is expanded.
    recounted: tuple[tuple[int, ...], ...]
    #: Tasks that look at this one by lines 1, 3 or 4 of S4.1; of these kin; and those that do by line 6 in the next run.
    watchers: tuple[tuple[int, ...], ...]
    kin_watchers: tuple[tuple[int, ...], ...]
    past_watchers: tuple[tuple[int, ...], ...]
    #: Tasks that look at the run before.
    looking_back: tuple[int, ...]
    #: `SubDagOperator` tasks.
    subdags: tuple[int, ...]
    #: Number of wide direct upstream tasks.
    wide_up_count: tuple[int, ...]
    #: Tasks to judge in a run in which nothing has happened yet; the others wait for an upstream task to finish.
    entries: tuple[int, ...]

    #: Tasks by whose end a run is judged (S2.14).
    leaves: tuple[int, ...]
    #: The same over the whole DAG, and the tasks of it that were not chosen (S13.7).
    leaves_of_all: frozenset[str]
    others: frozenset[str]

    @classmethod
    def compile(cls, dag: DAG, chosen: frozenset[str] | None = None, *, options: Options | None = None) -> Graph:
        """Return the compiled form of `dag`, cut to the `chosen` task ids (all if None)."""
        options = options or Options()
        everything = [dag.task_dict[task_id] for task_id in dag.topological_order()]
        relations = relate([task for task in everything if chosen is None or task.task_id in chosen])
        specs = _specs(relations, options)
        kin = _kin(relations.tasks, specs)
        wide_down, kin_down = _split(relations.down, kin)
        past_watchers = _turned((spec.index, spec.past) for spec in specs)
        watchers = _turned((s.index, {*s.deciders, *s.sources, *s.indirect_setups}) for s in specs)
        all_leaves = relations if len(everything) == len(specs) else relate(everything)
        return cls(
            dag_id=dag.dag_id,
            options=options,
            max_active_tasks=dag.max_active_tasks,
            tasks=specs,
            index={spec.task_id: spec.index for spec in specs},
            kin=kin,
            wide_down=wide_down,
            kin_down=kin_down,
            kin_up=tuple(tuple(up for up in spec.upstream if (spec.index, up) in kin) for spec in specs),
            has_kin=tuple(_has_kin(spec, kin) for spec in specs),
            at_once={code: _decided_at_once(code, wide_down, specs) for code in _ENDS},
            recounted=_recounted(len(specs), kin),
            watchers=watchers,
            kin_watchers=tuple(tuple(w for w in seen_by if (i, w) in kin) for i, seen_by in enumerate(watchers)),
            past_watchers=past_watchers,
            looking_back=tuple(spec.index for spec in specs if spec.past),
            subdags=tuple(spec.index for spec in specs if spec.is_subdag),
            wide_up_count=_counts(wide_down, len(specs)),
            entries=tuple(spec.index for spec in specs if _is_entry(spec, options)),
            leaves=effective_leaves(relations),
            leaves_of_all=frozenset(all_leaves.tasks[i].task_id for i in effective_leaves(all_leaves)),
            others=frozenset(task.task_id for task in everything) - {spec.task_id for spec in specs},
        )

    @property
    def task_ids(self) -> tuple[str, ...]:
        """The chosen tasks in topological order."""
        return tuple(spec.task_id for spec in self.tasks)

    @property
    def pools(self) -> tuple[str, ...]:
        """Names of the pools that the chosen tasks use, sorted."""
        return tuple(sorted({spec.pool for spec in self.tasks}))

    @property
    def limited_task_ids(self) -> tuple[str, ...]:
        """The tasks that have a limit of their own, in the DAG or in a run."""
        return tuple(
            spec.task_id
            for spec in self.tasks
            if spec.max_active_tis_per_dag is not None or spec.max_active_tis_per_dagrun is not None
        )

    @property
    def past_task_ids(self) -> tuple[str, ...]:
        """The tasks whose states in the run before are asked for (S4.9), in topological order."""
        return tuple(self.tasks[i].task_id for i in sorted(set(chain.from_iterable(s.past for s in self.tasks))))

    def spec(self, task_id: str) -> TaskSpec:
        """Return the compiled form of a chosen task."""
        return self.tasks[self.index[task_id]]

    def weight(self, task_id: str) -> int:
        """Return the effective weight of a chosen task (S5.5)."""
        return self.spec(task_id).weight

    def literal_indexes(self, task_id: str) -> range:
        """Return the map indexes of the rows that S2.12 creates; -1 if it is not mapped or not expanded yet."""
        length = self.spec(task_id).literal_length
        return range(length) if length else range(UNMAPPED, UNMAPPED + 1)

    def mapping_sources(self, task_id: str) -> frozenset[str]:
        """Return the ids of the tasks, chosen or not, whose return values give the length of a mapped task."""
        return frozenset(chain.from_iterable(mapping.sources() for mapping in self.spec(task_id).mappings))

    def mapping_length(self, task_id: str, lengths: Mapping[tuple[str, str], int]) -> int | None:
        """Return the number of indexes of a mapped task; None if a length that it needs is not in `lengths`.

        `lengths` is by task id and XCom key; a mapped source has as many as it pushed return values (S4.7).
        """
        found = [mapping.length(lambda task, key: lengths.get((task, key))) for mapping in self.spec(task_id).mappings]
        known = [length for length in found if length is not None]
        return prod(known) if len(known) == len(found) else None


_ENDS = (SUCCESS, SKIPPED, FAILED, UPSTREAM_FAILED)


def _specs(relations: Relations, options: Options) -> tuple[TaskSpec, ...]:
    index = {task.task_id: i for i, task in enumerate(relations.tasks)}
    weights, deciders, setups = effective_weights(relations), skip_deciders(relations), indirect_setups(relations)
    return tuple(
        _spec(
            task,
            options,
            relations,
            index,
            weight=weights[i],
            deciders=deciders[i],
            indirect_setups=setups[i],
        )
        for i, task in enumerate(relations.tasks)
    )


def _spec(
    task: AbstractOperator,
    options: Options,
    relations: Relations,
    index: Mapping[str, int],
    *,
    weight: int,
    deciders: tuple[int, ...],
    indirect_setups: tuple[int, ...],
) -> TaskSpec:
    i = index[task.task_id]
    mapped_over = tuple(mappings(task))
    lengths = [mapping.literal_length() for mapping in mapped_over]
    known = [length for length in lengths if length is not None]
    sources = chain.from_iterable(mapping.sources() for mapping in mapped_over)
    return TaskSpec(
        index=i,
        task_id=task.task_id,
        rule=task.trigger_rule,
        weight=weight,
        pool=options.pool or task.pool,
        pool_slots=task.pool_slots,
        max_active_tis_per_dag=task.max_active_tis_per_dag,
        max_active_tis_per_dagrun=task.max_active_tis_per_dagrun,
        is_setup=task.is_setup,
        is_teardown=task.is_teardown,
        settles_itself=task.nothing_to_execute or (options.mark_success and not task.on_success_callback),
        is_subdag=getattr(task, "subdag", None) is not None,
        upstream=tuple(relations.up[i]),
        direct_setups=tuple(up for up in relations.up[i] if relations.tasks[up].is_setup),
        deciders=deciders,
        indirect_setups=indirect_setups,
        past=_past(task, i, relations.down[i]),
        ignore_first_depends_on_past=task.ignore_first_depends_on_past,
        start_date=task.start_date,
        mappings=mapped_over,
        literal_length=prod(known) if mapped_over and len(known) == len(lengths) else None,
        sources=tuple(sorted({index[name] for name in sources if name in index})),
    )


def _past(task: AbstractOperator, i: int, down: Sequence[int]) -> tuple[int, ...]:
    if task.wait_for_downstream:
        return (i, *down)
    return (i,) if task.depends_on_past else ()


def _looked_at(spec: TaskSpec) -> set[int]:
    return {*spec.upstream, *spec.deciders, *spec.indirect_setups}


def _kin(tasks: Sequence[AbstractOperator], specs: Iterable[TaskSpec]) -> dict[tuple[int, int], Kinship]:
    kin = {}
    for spec in specs:
        for other in _looked_at(spec) if tasks[spec.index].mapped_groups else ():
            pair = kinship(tasks, spec.index, other)
            if pair is not None:
                kin[spec.index, other], kin[other, spec.index] = pair, pair.turned()
    return kin


def _recounted(size: int, kin: Mapping[tuple[int, int], Kinship]) -> tuple[tuple[int, ...], ...]:
    recounted: list[set[int]] = [{i} for i in range(size)]
    for (one, other), pair in kin.items():
        recounted[one].add(other)
        recounted[pair.gauge].add(other)
    return tuple(tuple(sorted(tasks)) for tasks in recounted)


def _has_kin(spec: TaskSpec, kin: Mapping[tuple[int, int], Kinship]) -> bool:
    return any((spec.index, other) in kin for other in _looked_at(spec))


def _split(
    down: Sequence[Sequence[int]], kin: Mapping[tuple[int, int], Kinship]
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Return the downstream edges between all and all, and those within a common mapped group."""
    wide = tuple(tuple(d for d in below if (i, d) not in kin) for i, below in enumerate(down))
    return wide, tuple(tuple(d for d in below if (i, d) in kin) for i, below in enumerate(down))


def _turned(edges: Iterable[tuple[int, Iterable[int]]]) -> tuple[tuple[int, ...], ...]:
    """Return for each task those that name it; each of `edges` is a task and the ones that it names."""
    listed = list(edges)
    turned: list[list[int]] = [[] for _ in listed]
    for task, named in listed:
        for other in named:
            turned[other].append(task)
    return tuple(tuple(tasks) for tasks in turned)


def _decided_at_once(
    code: int, down: Sequence[tuple[int, ...]], specs: Sequence[TaskSpec]
) -> tuple[tuple[int, ...], ...]:
    decided = [code in AT_ONCE[spec.rule] for spec in specs]
    return tuple(below if all(decided[d] for d in below) else tuple(d for d in below if decided[d]) for below in down)


def _counts(down: Iterable[Iterable[int]], size: int) -> tuple[int, ...]:
    counter = Counter(chain.from_iterable(down))
    return tuple(counter[i] for i in range(size))


def _is_entry(spec: TaskSpec, options: Options) -> bool:
    """Return whether `spec` may go, or be expanded, before anything in the run has finished."""
    waits_for_upstream = bool(spec.upstream) and spec.rule is not TriggerRule.ALWAYS
    waits_for_length = spec.is_dynamic and bool(spec.sources)
    return (
        options.ignore_task_deps
        or not (waits_for_upstream or waits_for_length)
        or (spec.is_dynamic and not spec.sources)
    )
