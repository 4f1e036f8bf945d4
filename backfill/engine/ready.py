"""Ready task instances in the order of dispatch (S5.5), grouped so that a full limit costs nothing for each that it holds back.

Tasks of equal weight form a band. In a band each task has a lane: its ready places, earliest run date and lowest map index
first. All that is in a lane has the same limits, so that a lane without room is passed over as a whole. A task with a limit
per run has one lane for each run.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, NamedTuple

from backfill.engine.graph import Graph, TaskSpec
from backfill.engine.limits import Occupancy, dag_room, room
from backfill.engine.run import SLOT_BITS

#: Stands for the run of a lane that all runs share.
EVERY_RUN: Final = 0


class Lane(NamedTuple):
    """Ready places of one task, or of one task in one run, as a heap. It may still hold places that are not ready any more."""

    spec: TaskSpec
    dag_run_id: int
    heap: list[int]


class Turn(NamedTuple):
    """The task instance that goes before all others of its window, in the order of S5.5; smaller ones go first."""

    negative_weight: int
    #: Of its run.
    ordinal: int
    task: int
    lane: Lane


class Ready:
    """The ready places. One leaves only by `discard`; `pick` may be called again with the same result."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        #: Ready places whose row says so already (`scheduled`), and those whose row does not.
        self._scheduled: set[int] = set()
        self._unplaced: set[int] = set()
        #: Ready places that `pick` took out of their lanes.
        self._picked: dict[int, Lane] = {}
        bands: dict[int, dict[tuple[int, int], Lane]] = {}
        self._band_of = [bands.setdefault(spec.weight, {}) for spec in graph.tasks]
        self._bands = [bands[weight] for weight in sorted(bands, reverse=True)]
        self._has_lane_per_run = [spec.max_active_tis_per_dagrun is not None for spec in graph.tasks]

    def __contains__(self, place: int) -> bool:
        return place in self._unplaced or place in self._scheduled

    def __len__(self) -> int:
        return len(self._unplaced) + len(self._scheduled)

    def __iter__(self) -> Iterator[int]:
        yield from self._unplaced
        yield from self._scheduled

    def add(self, place: int, task: int, dag_run_id: int, *, scheduled: bool) -> None:
        """Let `place`, of `task`, wait for a place in flight; nothing happens if it does so already."""
        if place in self._unplaced or place in self._scheduled:
            return
        (self._scheduled if scheduled else self._unplaced).add(place)
        self._push(place, task, dag_run_id)

    def _push(self, place: int, task: int, dag_run_id: int) -> None:
        key = (task, dag_run_id if self._has_lane_per_run[task] else EVERY_RUN)
        band = self._band_of[task]
        lane = band.get(key)
        if lane is None:
            band[key] = Lane(self._graph.tasks[task], key[1], [place])
        else:
            heappush(lane.heap, place)

    def mark_scheduled(self, place: int) -> None:
        """Note that the row of a ready place is `scheduled` now (S3.2)."""
        self._unplaced.discard(place)
        self._scheduled.add(place)

    def discard(self, place: int) -> None:
        """Let `place` go; nothing happens if it was not ready."""
        self._unplaced.discard(place)
        self._scheduled.discard(place)

    def unplaced(self) -> list[int]:
        """Return the ready places whose row does not say so yet."""
        return sorted(self._unplaced)

    def tasks(self) -> list[TaskSpec]:
        """Return the tasks that have ready task instances."""
        self.put_back()
        lanes = (lane for band in self._bands for lane in band.values())
        return [lane.spec for lane in lanes if self._head(lane) is not None]

    def pick(self, occupancy: Occupancy, limit: int) -> list[int]:
        """Return up to `limit` places that may go now, in order; what they take is counted in `occupancy`.

        One held back by a limit holds back no other (S5.2).
        """
        self.put_back()
        picked: list[int] = []
        for band in self._bands:
            if len(picked) == limit or dag_room(self._graph, occupancy) <= 0:
                break
            lanes = [lane for key in list(band) if (lane := self._lane_with_room(band, key, occupancy))]
            pick = self._pick_from_one if len(lanes) == 1 else self._pick_from_several
            picked += pick(lanes, occupancy, limit - len(picked))
        return picked

    def next_turn(self, occupancy: Occupancy) -> Turn | None:
        """Return the turn that comes first of those that have room; `put_back` comes before the first."""
        for band in self._bands:
            heads = [
                (head >> SLOT_BITS, lane.spec.index, lane)
                for lane in band.values()
                if self._room(lane, occupancy) and (head := self._head(lane)) is not None
            ]
            if heads:
                ordinal, index, lane = min(heads, key=lambda head: head[:2])
                return Turn(-lane.spec.weight, ordinal, index, lane)
        return None

    def take_turn(self, turn: Turn, occupancy: Occupancy) -> int:
        """Take the place whose turn it is, and count what it takes in `occupancy`."""
        occupancy.take(self._graph, turn.lane.spec, turn.lane.dag_run_id, 1)
        return self._take(turn.lane)

    def _pick_from_one(self, lanes: list[Lane], occupancy: Occupancy, limit: int) -> list[int]:
        """Pick from the only lane of its weight."""
        (lane,) = lanes
        most = min(limit, self._room(lane, occupancy))
        picked: list[int] = []
        while len(picked) < most and self._head(lane) is not None:
            picked.append(self._take(lane))
        occupancy.take(self._graph, lane.spec, lane.dag_run_id, len(picked))
        return picked

    def _pick_from_several(self, lanes: list[Lane], occupancy: Occupancy, limit: int) -> list[int]:
        """Pick from lanes of equal weight: by run date, then topology, then map index."""
        heads = [(lane.heap[0] >> SLOT_BITS, lane.spec.index, lane.heap[0], lane) for lane in lanes]
        heapify(heads)
        picked: list[int] = []
        while heads and len(picked) < limit:
            lane = heads[0][-1]
            if not self._room(lane, occupancy):
                heappop(heads)
                continue
            picked.append(self._take(lane))
            occupancy.take(self._graph, lane.spec, lane.dag_run_id, 1)
            head = self._head(lane)
            if head is None:
                heappop(heads)
            else:
                heapreplace(heads, (head >> SLOT_BITS, lane.spec.index, head, lane))
        return picked

    def _lane_with_room(
        self, band: dict[tuple[int, int], Lane], key: tuple[int, int], occupancy: Occupancy
    ) -> Lane | None:
        """Return a lane from which something may go now; an empty one is dropped."""
        lane = band[key]
        if not self._room(lane, occupancy):
            return None
        if self._head(lane) is None:
            del band[key]
            return None
        return lane

    def _room(self, lane: Lane, occupancy: Occupancy) -> int:
        return room(self._graph, lane.spec, lane.dag_run_id, occupancy)

    def _head(self, lane: Lane) -> int | None:
        """Return the first ready place of a lane after dropping those that are not ready any more, or picked already."""
        heap = lane.heap
        while heap:
            place = heap[0]
            if (place in self._unplaced or place in self._scheduled) and place not in self._picked:
                return place
            heappop(heap)
        return None

    def _take(self, lane: Lane) -> int:
        place = heappop(lane.heap)
        self._picked[place] = lane
        return place

    def put_back(self) -> None:
        """Return to their lanes the places that were picked and are still ready, since nothing came of it."""
        for place, lane in self._picked.items():
            if place in self:
                self._push(place, lane.spec.index, lane.dag_run_id)
        self._picked.clear()
