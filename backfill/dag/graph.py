"""Order and cycles of the tasks of a DAG."""

from __future__ import annotations

from collections.abc import Mapping, Set as AbstractSet
from heapq import heapify, heappop, heappush


def topological_order(downstream: Mapping[str, AbstractSet[str]]) -> list[str]:
    """Return the task ids with each after all that come before it, else in the order of `downstream`'s keys.

    Tasks of a cycle, and what comes after one, are left out.
    """
    place = {task_id: position for position, task_id in enumerate(downstream)}
    names = list(downstream)
    waiting_for = dict.fromkeys(downstream, 0)
    for targets in downstream.values():
        for target in targets:
            waiting_for[target] += 1
    ready = [place[task_id] for task_id, count in waiting_for.items() if count == 0]
    heapify(ready)
    order: list[str] = []
    while ready:
        task_id = names[heappop(ready)]
        order.append(task_id)
        for target in downstream[task_id]:
            waiting_for[target] -= 1
            if waiting_for[target] == 0:
                heappush(ready, place[target])
    return order


def find_cycle(downstream: Mapping[str, AbstractSet[str]]) -> list[str] | None:
    """Return the task ids of one cycle, in the order of its edges, or None."""
    upstream: dict[str, list[str]] = {task_id: [] for task_id in downstream}
    left = set(downstream).difference(topological_order(downstream))
    for task_id in sorted(left):
        for target in downstream[task_id]:
            upstream[target].append(task_id)
    # Each task that is left waits for another that is left: whoever walks upstream comes round.
    walked: list[str] = []
    if not left:
        return None
    task_id = min(left)
    while task_id not in walked:
        walked.append(task_id)
        task_id = upstream[task_id][0]
    return walked[walked.index(task_id) :][::-1]
