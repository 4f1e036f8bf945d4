"""Scenarios in which semantics.md deliberately differs from what Airflow did: the rule that wins, and what it gives.

`parts` holds every part in which our result differs, and no other, with the value that the rule gives, in the words of
`comparison`. So an entry is a full check of its scenario, and one that has become stale fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comparison import ABSENT


@dataclass(frozen=True)
class Deliberate:
    #: Number of the rule in semantics.md.
    rule: str
    because: str
    parts: Mapping[str, Any]


_FAILURE_BEATS_SKIP = "all_success over a failed and a skipped parent is upstream_failed, whichever ended first"
_FOUND_FINISHED = "a finished run that is found counts as done and keeps its state; Airflow judges it again"
_FULL_RETRIES = "a cleared task instance gets its full number of retries again"
_WHOLE_DAG = "the other tasks of the run have failed: the run is judged by them too, the job is not"
_OTHER_PAST = "what the past was blocked by does not count, so that nothing is blocked"
_REFUSED_POOL = "a pool that does not exist refuses the job before anything is written"
_ALL_INDEXES = "the decision of a branch covers all map indexes"
_ZOMBIE = "what is running without a heartbeat is an infrastructure failure, and started again in the same try"
_ZOMBIE_RUNS_AGAIN = {
    "job": "success",
    "error": None,
    "deadlocked": set(),
    "a 2024-01-01": ("success", 1, 1),
    "b 2024-01-01": ("success", 1, 1),
    "run 2024-01-01": "success",
}
_REFUSED = {"job": "refused", "run 2024-01-01": ABSENT, "run 2024-01-02": ABSENT}

#: Against the families.
DIFFERENCES: dict[str, Deliberate] = {
    "limits-0025": Deliberate("S1.2", _REFUSED_POOL, _REFUSED),
    "limits-0026": Deliberate("S1.2", _REFUSED_POOL, _REFUSED),
    "mapped-0110": Deliberate(
        "S4.1 line 3, S4.7",
        "a mapped source passes when all its task instances are finished: two values were pushed, two indexes are made",
        {
            "failed": {"m[1] 2024-01-01", "n[0] 2024-01-01", "n[1] 2024-01-01"},
            "n 2024-01-01": ABSENT,
            "n[0] 2024-01-01": ("upstream_failed", 0, 0),
            "n[1] 2024-01-01": ("upstream_failed", 0, 0),
        },
    ),
    "mapped-0120": Deliberate(
        "section 10, -m",
        "under mark_success a mapping without stored values is not expanded, its row -1 becomes success",
        {
            "job": "success",
            "error": None,
            "m 2024-01-01": ("success", 1, 0),
            "z 2024-01-01": ("success", 1, 0),
            "run 2024-01-01": "success",
        },
    ),
    "mixed-0115": Deliberate(
        "S9.2",
        "under continue_on_failures the stuck run of the second date is closed, and the dates after it have their turn",
        {
            "failed": {
                "t01 2024-01-01",
                "t04 2024-01-02",
                "t00 2024-01-03",
                "t01 2024-01-03",
                "t00 2024-01-04",
                "t01 2024-01-04",
                "t04 2024-01-04",
            },
            "t00 2024-01-03": ("failed", 1, 1),
            "t01 2024-01-03": ("upstream_failed", 0, 0),
            "t02 2024-01-03": ("success", 1, 1),
            "t03 2024-01-03": ("success", 1, 1),
            "t04 2024-01-03": ("success", 1, 1),
            "t01 2024-01-04": ("upstream_failed", 0, 0),
            "t02 2024-01-04": ("success", 1, 1),
            "t03 2024-01-04": ("success", 1, 1),
            "t04 2024-01-04": ("failed", 1, 1),
        },
    ),
    "mixed-0149": Deliberate("S2.8", _FOUND_FINISHED, {"run 2024-01-01": "success"}),
    "mixed-0195": Deliberate("S2.8", _FOUND_FINISHED, {"run 2024-01-02": "failed"}),
    "past-0024": Deliberate(
        "S9.2",
        "under continue_on_failures the stuck run of the third date is closed, and the fourth is admitted",
        {
            "deadlocked": {"a 2024-01-03", "b 2024-01-03", "a 2024-01-04", "b 2024-01-04"},
            "a 2024-01-04": (None, 0, 0),
            "b 2024-01-04": (None, 0, 0),
        },
    ),
    "past-0045": Deliberate(
        "S2.12, S4.9",
        f"{_OTHER_PAST}: a removed task instance is ignored",
        {
            "job": "success",
            "error": None,
            "deadlocked": set(),
            "a 2024-01-01": ("success", 1, 1),
            "b 2024-01-01": ("success", 1, 1),
            "a 2024-01-02": ("success", 1, 1),
            "b 2024-01-02": ("success", 1, 1),
            "run 2024-01-01": "success",
            "run 2024-01-02": "success",
        },
    ),
    "past-0065": Deliberate(
        "S4.9",
        f"{_OTHER_PAST}: a manual run is never the run before",
        {
            "job": "success",
            "error": None,
            "deadlocked": set(),
            "a 2024-01-01": ("success", 1, 1),
            "b 2024-01-01": ("success", 1, 1),
            "a 2024-01-02": ("success", 1, 1),
            "b 2024-01-02": ("success", 1, 1),
            "run 2024-01-01": "success",
            "run 2024-01-02": "success",
        },
    ),
    "presets-0064": Deliberate("S2.8", _FOUND_FINISHED, {"run 2024-01-01": "failed"}),
    "presets-0086": Deliberate(
        "S2.9",
        _FULL_RETRIES,
        {
            "job": "success",
            "error": None,
            "failed": set(),
            "a 2024-01-01": ("success", 4, 2),
            "b 2024-01-01": ("success", 3, 3),
            "run 2024-01-01": "success",
        },
    ),
    "presets-0087": Deliberate("S2.9", _FULL_RETRIES, {"a 2024-01-01": ("failed", 4, 3)}),
    "presets-0088": Deliberate("S2.9", _FULL_RETRIES, {"a 2024-01-01": ("failed", 6, 3)}),
    "presets-0126": Deliberate("S2.8", _FOUND_FINISHED, {"run 2024-01-02": "failed"}),
    "ranges-0013": Deliberate(
        "S2.2",
        "a DAG without schedule has one run at the date if start = end",
        {"job": "success", "error": None, "a 2024-01-01": ("success", 1, 1), "run 2024-01-01": "success"},
    ),
    # agrees with Airflow from 29 February 2028 on, when the interval is over; the entry can go then
    "ranges-0016": Deliberate(
        "S2.4",
        "the data interval of 29 February 2024 ends in 2028: the date is left out",
        {"a 2024-02-29": ABSENT, "run 2024-02-29": ABSENT},
    ),
    "subset-0026": Deliberate("S13.7", _WHOLE_DAG, {"run 2024-01-01": "failed"}),
    "subset-0027": Deliberate("S13.7", _WHOLE_DAG, {"run 2024-01-01": "failed"}),
    "trigger-0360": Deliberate(
        "S4.4",
        _FAILURE_BEATS_SKIP,
        {
            "failed": {
                "t05 2024-01-02",
                "t02 2024-01-03",
                "t03 2024-01-03",
                "t04 2024-01-03",
                "t06 2024-01-03",
                "t08 2024-01-03",
            },
            "t04 2024-01-03": ("upstream_failed", 0, 0),
            "t06 2024-01-03": ("upstream_failed", 0, 0),
            "t07 2024-01-03": ("success", 1, 1),  # none_skipped: no parent is skipped any more
        },
    ),
    "trigger-0361": Deliberate(
        "S4.4",
        _FAILURE_BEATS_SKIP,
        {
            "failed": {"t03 2024-01-01", "t05 2024-01-01", "t10 2024-01-01"},
            "t05 2024-01-01": ("upstream_failed", 0, 0),
            "t10 2024-01-01": ("upstream_failed", 0, 0),
        },
    ),
    "trigger-0438": Deliberate(
        "S4.4",
        _FAILURE_BEATS_SKIP,
        {
            "failed": {"t00 2024-01-01", "t01 2024-01-01", "t03 2024-01-01", "t01 2024-01-02", "t03 2024-01-02"},
            "t03 2024-01-02": ("upstream_failed", 0, 0),
            "run 2024-01-02": "failed",
        },
    ),
}

#: Against the first result observed, where Airflow gave several and ours is none of them.
UNLIKE_ANY_OBSERVED: dict[str, Deliberate] = {
    "mixed-0166": Deliberate(
        "S9.7",
        "what is skipped is no failure; Airflow reports t05 as failed though it is skipped",
        {"failed": {"t00 2024-01-01", "t04 2024-01-01"}},
    ),
    "past-0093": Deliberate(
        "S4.4",
        _FAILURE_BEATS_SKIP,
        {
            "failed": {"t02 2024-01-02", "t03 2024-01-02", "t04 2024-01-02"},
            "t03 2024-01-02": ("upstream_failed", 0, 0),
            "t04 2024-01-02": ("upstream_failed", 0, 0),
            "run 2024-01-02": "failed",
        },
    ),
    "trigger-0354": Deliberate(
        "S4.4",
        _FAILURE_BEATS_SKIP,
        {
            "failed": {
                "t06 2024-01-01",
                "t00 2024-01-02",
                "t01 2024-01-02",
                "t02 2024-01-02",
                "t03 2024-01-02",
                "t08 2024-01-02",
                "t09 2024-01-02",
                "t10 2024-01-02",
                "t05 2024-01-03",
                "t09 2024-01-03",
            },
            "t10 2024-01-02": ("upstream_failed", 0, 0),
        },
    ),
    "trigger-0400": Deliberate(
        "S4.4",
        _FAILURE_BEATS_SKIP,
        {
            "failed": {"t04 2024-01-01", "t07 2024-01-01", "t08 2024-01-01"},
            "t07 2024-01-01": ("upstream_failed", 0, 0),
            "t08 2024-01-01": ("upstream_failed", 0, 0),
            "run 2024-01-01": "failed",
        },
    ),
}

#: Against what Airflow did by a defect, where it gave no sane result by another way. The waves of `max_active_runs` are not here:
#: which dates have started when a failure is seen depends on speed (S0.3).
INSTEAD_OF_A_DEFECT: dict[str, Deliberate] = {
    "mapped-0115": Deliberate(
        "S4.8",
        _ALL_INDEXES,
        {"m[0] 2024-01-01": ("skipped", 0, 0), "m[1] 2024-01-01": ("skipped", 0, 0)},
    ),
    "mixed-0017": Deliberate("S9.4", "no run stays running; in all else as Airflow", {}),
    "mixed-0076": Deliberate(
        "S4.8",
        _ALL_INDEXES,
        {
            "failed": {
                "t02 2024-01-02",
                "t04[0] 2024-01-02",
                "t04[1] 2024-01-02",
                "t05 2024-01-02",
                "t07 2024-01-02",
                "t09 2024-01-02",
            },
            "t04[0] 2024-01-01": ("skipped", 0, 0),
            "t04[1] 2024-01-01": ("skipped", 0, 0),
            "t07 2024-01-01": ("skipped", 0, 0),
            "t09 2024-01-01": ("skipped", 0, 0),
            "run 2024-01-01": "success",
        },
    ),
    "past-0073": Deliberate(
        "S4.10",
        "the first run of the range does not look at the past, aligned start or not",
        {
            "job": "success",
            "error": None,
            "deadlocked": set(),
            "a 2024-01-02": ("success", 1, 1),
            "b 2024-01-02": ("success", 1, 1),
            "a 2024-01-03": ("success", 1, 1),
            "b 2024-01-03": ("success", 1, 1),
            "run 2024-01-02": "success",
            "run 2024-01-03": "success",
        },
    ),
    "presets-0095": Deliberate(
        "S2.12",
        "a removed index is ignored by every rule",
        {
            "job": "success",
            "error": None,
            "deadlocked": set(),
            "z 2024-01-01": ("success", 1, 1),
            "run 2024-01-01": "success",
        },
    ),
    "presets-0108": Deliberate("S8.4", _ZOMBIE, _ZOMBIE_RUNS_AGAIN),
    "presets-0109": Deliberate("S8.4", _ZOMBIE, _ZOMBIE_RUNS_AGAIN),
}
