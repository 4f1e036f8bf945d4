"""What the journal and the rows say about a backfill that was disturbed; nothing else is asked.

The order of events is the order of the journal's lines, not the time in them: a worker's clock may be wrong.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from chaos_plans import Ending, Key

#: How an attempt may have ended whose conclusion is in the database.
CONCLUDED = frozenset({"success", "failed", "skipped", "up_for_retry", "up_for_reschedule"})
FINAL = frozenset({"success", "failed", "skipped", "upstream_failed"})


class Entry(NamedTuple):
    """A line of the journal."""

    #: `start`, `tick`, then `end`, or `fail` where the plan wanted the try to fail.
    event: str
    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int
    attempt_id: str
    pid: int
    #: By the clock of the process.
    time: float
    #: Seconds since the machine was booted: no fault changes them.
    moment: float

    @property
    def key(self) -> Key:
        return Key(self.task_id, datetime.fromisoformat(self.run_id.removeprefix("backfill__")).day, self.map_index)


def read_journal(path: Path) -> list[Entry]:
    """Return the lines that are complete: the last one may be being written."""
    text = path.read_text() if path.exists() else ""
    return [Entry(*json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()]


def count_lines(path: Path) -> int:
    """Return the number of lines but for mere signs of life, in a fraction of the time that it takes to read them."""
    data = path.read_bytes() if path.exists() else b""
    return data.count(b"\n") - data.count(b'["tick"')


@dataclass
class Work:
    """What one process did in one attempt. Positions are line numbers of the journal."""

    key: Key
    attempt_id: str
    try_number: int
    begun_at: int
    last_seen_at: int
    end: str = ""


def works_of(journal: Iterable[Entry]) -> dict[Key, list[Work]]:
    """Return what was done for each task instance, in the order in which it began."""
    found: dict[Key, list[Work]] = defaultdict(list)
    going_on: dict[tuple[str, int], Work] = {}
    for position, entry in enumerate(journal):
        who = entry.attempt_id, entry.pid
        if entry.event == "start":
            going_on[who] = Work(entry.key, entry.attempt_id, entry.try_number, position, position)
            found[entry.key].append(going_on[who])
        else:
            going_on[who].last_seen_at = position
        if entry.event in {"end", "fail"}:
            going_on[who].end = entry.event
    return found


@dataclass(frozen=True)
class Row:
    """A task instance as the database has it in the end."""

    state: str
    tries: int
    error: str
    #: How its attempts ended, by attempt id; None: that is not written.
    outcomes: Mapping[str, str | None] = field(default_factory=dict)


def read_rows(ask: Any) -> dict[Key, Row]:
    """Return all task instances that `ask`, which takes SQL, finds."""
    outcomes: dict[int, dict[str, str | None]] = defaultdict(dict)
    for attempt in ask("select cast(attempt_id as text) as id, task_instance_id, outcome from task_attempt"):
        outcomes[attempt.task_instance_id][attempt.id] = attempt.outcome
    found = ask(
        "select ti.*, extract(day from r.logical_date at time zone 'UTC') as day"
        " from task_instance ti join dag_run r on r.id = ti.dag_run_id"
    )
    return {
        Key(row.task_id, int(row.day), row.map_index): Row(row.state, row.try_number, row.error or "", outcomes[row.id])
        for row in found
    }


@dataclass(frozen=True)
class Verdict:
    """Each list names task instances, and what is wrong with them."""

    task_instances: int
    started: int
    finished: int
    #: Attempts that were killed, or were cut off, and were told to be lost.
    attempts_lost: int
    #: Finished work, written into the database, was done again.
    run_twice: list[str]
    #: Two attempts were at work at once.
    overlapping: list[str]
    #: Work that had reached its end was done again, since that end could not be written any more: what is not promised.
    not_committed: list[str]
    #: Not in a final state, or in one without the work that leads there.
    lost: list[str]
    #: In another state, or after other tries, than without the fault.
    differing: list[str]
    #: Failed because of the fault, with an error that says so, or since something before them did.
    spoiled: list[str]

    @property
    def broken(self) -> list[str]:
        """Whatever no fault excuses."""
        return [*self.run_twice, *self.overlapping, *self.lost]


def judge(
    endings: Mapping[Key, Ending],
    journal: Sequence[Entry],
    rows: Mapping[Key, Row],
    *,
    spoils: str = "",
    cut_short: bool = False,
) -> Verdict:
    """Hold journal and rows against how the task instances have to end.

    Those with an error that matches `spoils` may have failed, and so may what depends on them. Where the job was `cut_short`, it
    is asked only whether something ran twice or at once.
    """
    excused = _excused(endings, rows, spoils) if spoils else set()
    works = works_of(journal)
    endings = {} if cut_short else endings
    asked = set() if cut_short else {*endings, *rows} - (excused - rows.keys())
    again = [_again(each, rows) for each in works.values()]
    return Verdict(
        task_instances=len(rows),
        started=sum(len(each) for each in works.values()),
        finished=sum(work.end != "" for each in works.values() for work in each),
        attempts_lost=sum(outcome == "lost" for row in rows.values() for outcome in row.outcomes.values()),
        run_twice=[text for twice, _ in again for text in twice],
        overlapping=[text for each in works.values() for text in _overlapping(each)],
        not_committed=[text for _, not_committed in again for text in not_committed],
        lost=[text for key in asked for text in _lost(key, endings, works.get(key, []), rows)],
        differing=[text for key in endings if key not in excused for text in _differing(key, endings, rows)],
        spoiled=[text for key in sorted(excused & {*endings}) for text in _differing(key, endings, rows)],
    )


def _excused(endings: Iterable[Key], rows: Mapping[Key, Row], spoils: str) -> set[Key]:
    """Return what failed with such an error, what could not run for it, and indexes of mappings that nobody could count."""
    spoiled = {key for key, row in rows.items() if re.search(spoils, row.error)}
    days = {key.day for key in spoiled}
    spoiled |= {key for key, row in rows.items() if key.day in days and row.state in {"upstream_failed", "skipped"}}
    return spoiled | {key for key in endings if key not in rows and Key(key.task_id, key.day, -1) in spoiled}


def _again(works: Sequence[Work], rows: Mapping[Key, Row]) -> tuple[list[str], list[str]]:
    """Return where work began after it had ended: with that end in the database, and without."""
    twice, not_committed = [], []
    for before, after in pairwise(works):
        if not before.end:
            continue
        row = rows.get(before.key)
        outcome = row.outcomes.get(before.attempt_id) if row else None
        if outcome == "up_for_retry" and after.try_number > before.try_number:
            continue
        text = (
            f"{before.key} began again (attempt {after.attempt_id}) after attempt {before.attempt_id} ended: {outcome}"
        )
        (twice if outcome in CONCLUDED else not_committed).append(text)
    return twice, not_committed


def _overlapping(works: Sequence[Work]) -> list[str]:
    return [
        f"{before.key}: attempt {before.attempt_id} gave a sign of life after {after.attempt_id} had begun"
        for number, before in enumerate(works)
        for after in works[number + 1 :]
        if before.last_seen_at > after.begun_at
    ]


def _lost(key: Key, endings: Mapping[Key, Ending], works: Sequence[Work], rows: Mapping[Key, Row]) -> list[str]:
    row, ending = rows.get(key), endings.get(key)
    if row is None or row.state not in FINAL:
        return [f"{key} is {row.state if row else 'missing'}"]
    faults = [f"{key} has an open attempt {each}" for each, outcome in row.outcomes.items() if outcome is None]
    if ending and ending.tries and row.state == "success" and not any(work.end == "end" for work in works):
        faults.append(f"{key} is success, and its work was never done")
    return faults


def _differing(key: Key, endings: Mapping[Key, Ending], rows: Mapping[Key, Row]) -> list[str]:
    row, ending = rows.get(key), endings[key]
    if row is None or (row.state, row.tries) == ending:
        return []
    return [
        f"{key} is {row.state} after {row.tries} tries instead of {ending.state} after {ending.tries}: {row.error[:300]}"
    ]


def seconds_to_recover(in_flight: Collection[Key], struck_at: float, journal: Iterable[Entry]) -> float:
    """Return the time from the fault until each task instance that was in flight then had begun (again) or ended.

    Those that never do either are left out: they are told to be lost, or ended without work.
    """
    first: dict[Key, float] = {}
    for entry in journal:
        if entry.moment > struck_at and entry.event != "tick":
            first.setdefault(entry.key, entry.moment - struck_at)
    return max((first[key] for key in in_flight if key in first), default=0.0)
