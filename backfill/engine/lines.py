"""The questions of S4.1, line by line. Each reads a run and answers for one task, or for one map index of it.

`index` is the map index where task instances are judged one by one, else -1: then the answer holds for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from backfill.engine.codes import FAILED, REMOVED, SKIPPED, SUCCESS, UPSTREAM_FAILED
from backfill.engine.graph import TaskSpec
from backfill.engine.past import look_back
from backfill.engine.rules import RUN_AFTER_SUCCESS, WAIT_FOR_THE_FIRST, Upstream, judge
from backfill.engine.run import RunState
from backfill.engine.verdicts import Verdict
from backfill.states import TriggerRule

Question = Callable[[RunState, TaskSpec, int], Verdict]


def deciders_have_finished(run: RunState, spec: TaskSpec, index: int) -> Verdict:
    """Ask line 1: has every operator finished that may decide to skip this task instance (S4.8)."""
    finished = all(run.state[slot] >= SUCCESS for slot in _slots(run, spec, index, spec.deciders))
    return Verdict.PASS if finished else Verdict.WAIT


def no_decider_skips_it(run: RunState, spec: TaskSpec, index: int) -> Verdict:
    """Ask line 2: did none of them decide to skip it. Only those that ended `success` decide."""
    skips = any(
        run.state[slot] == SUCCESS and spec.task_id in run.skips(slot)
        for slot in _slots(run, spec, index, spec.deciders)
    )
    return Verdict.SKIP if skips else Verdict.PASS


def mapping_is_known(run: RunState, spec: TaskSpec, _: int) -> Verdict:
    """Ask line 3: if it is not expanded, did every source of its mapping or mapped group end with `success`.

    If so, its length is found out (S4.7). So it is, once more, for idle indexes whose sources have run again.
    """
    is_expanded = spec.index in run.expanded
    if is_expanded and spec.index in run.lengths:  # forgotten when a source changes
        return Verdict.PASS
    sources = _all_succeeded(_source_states(run, spec))
    if sources is not Verdict.PASS:
        return Verdict.PASS if is_expanded else sources
    if spec.index not in run.lengths:
        return Verdict.EXPAND
    length = run.lengths[spec.index]
    if length == 0:
        return Verdict.PASS
    if length is None:  # no values are stored
        return Verdict.PASS if run.graph.options.mark_success else Verdict.FAIL
    return Verdict.WAIT  # for the rows


def setups_have_succeeded(run: RunState, spec: TaskSpec, index: int) -> Verdict:
    """Ask line 4: did all relevant indirect setups (S4.6) succeed."""
    return _all_succeeded(run.state[slot] for slot in _slots(run, spec, index, spec.indirect_setups))


def rule_lets_it_run(run: RunState, spec: TaskSpec, index: int) -> Verdict:
    """Ask line 5: does the trigger rule (S4.3) let it run."""
    n, left, k, f, x = run.upstream_counts(spec.index, index)
    if not (left or k or f) and spec.rule in RUN_AFTER_SUCCESS:
        return Verdict.PASS
    if left == n and spec.rule in WAIT_FOR_THE_FIRST and n:
        return Verdict.WAIT
    upstream = Upstream(n, s=n - left - k - f, k=k, f=f, x=x)
    if spec.rule is TriggerRule.ALL_DONE_SETUP_SUCCESS and not left:
        upstream = _with_setups(upstream, run, spec, index)
    return judge(spec.rule, upstream)


def there_is_something_to_map(run: RunState, spec: TaskSpec, _: int) -> Verdict:
    """Ask what comes of length 0: the row -1 stays, and becomes `skipped` when lines 4 and 5 let it run (S4.7)."""
    length = run.lengths.get(spec.index) if spec.is_dynamic else spec.literal_length
    return Verdict.SKIP if length == 0 and spec.index not in run.expanded else Verdict.PASS


def past_lets_it_run(run: RunState, spec: TaskSpec, _: int) -> Verdict:
    """Ask line 6: `depends_on_past`, `wait_for_downstream` (S4.9)."""
    return look_back(run, spec).verdict


def _all_succeeded(codes: Iterable[int]) -> Verdict:
    """Lines 3 and 4: one ended badly, `upstream_failed`; else, all finished and one skipped, `skipped`; else wait."""
    found = set(codes)
    if found & {FAILED, UPSTREAM_FAILED}:
        return Verdict.FAIL
    if found <= {SUCCESS, REMOVED}:
        return Verdict.PASS
    return Verdict.SKIP if found <= {SUCCESS, SKIPPED, REMOVED} else Verdict.WAIT


def _source_states(run: RunState, spec: TaskSpec) -> Iterable[int]:
    """Yield how each source stands. An expanded one passes as soon as all its task instances are finished."""
    for source in spec.sources:
        if source not in run.expanded:
            yield run.state[source]
        elif not run.is_over(source):
            yield next(code for code in run.states_of(source) if code < SUCCESS)


def _slots(run: RunState, spec: TaskSpec, index: int, tasks: Iterable[int]) -> Iterable[int]:
    return (slot for task in tasks for slot in run.relevant(spec.index, index, task))


def _with_setups(upstream: Upstream, run: RunState, spec: TaskSpec, index: int) -> Upstream:
    codes = [run.state[slot] for slot in _slots(run, spec, index, spec.direct_setups)]
    return upstream._replace(
        setups=len(codes) - codes.count(REMOVED), setups_s=codes.count(SUCCESS), setups_k=codes.count(SKIPPED)
    )
