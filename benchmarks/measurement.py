"""What a measure returns: figures with their samples, held against goals; and how that is kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, assert_never

from benchmarks.figures import median

#: Raised by one with each change that makes older files of results unreadable.
FORMAT = 1


class Mode(StrEnum):
    """How large the measured cases are."""

    FULL = "full"
    QUICK = "quick"


class Relation(StrEnum):
    """On which side of its bound a figure has to be."""

    AT_LEAST = "≥"
    AT_MOST = "≤"


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure has to reach, in the figure's unit."""

    relation: Relation
    bound: float

    def is_met_by(self, value: float) -> bool:
        """Return whether `value` is on the right side, or on the bound."""
        match self.relation:
            case Relation.AT_LEAST:
                return value >= self.bound
            case Relation.AT_MOST:
                return value <= self.bound
            case _:
                assert_never(self.relation)


def at_least(bound: float) -> Goal:
    """Return the goal of a figure that should be large."""
    return Goal(Relation.AT_LEAST, bound)


def at_most(bound: float) -> Goal:
    """Return the goal of a figure that should be small."""
    return Goal(Relation.AT_MOST, bound)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number, and the samples that it was made of."""

    name: str
    #: None: it could not be measured, `note` says why.
    value: float | None
    #: As it stands behind the number: `ms`, `1/s`.
    unit: str
    #: One for each run, in the order in which they were taken.
    samples: Sequence[float] = ()
    goal: Goal | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without goal or value."""
        if self.goal is None or self.value is None:
            return None
        return self.goal.is_met_by(self.value)


def middle(name: str, samples: Sequence[float], unit: str, *, goal: Goal | None = None, note: str = "") -> Figure:
    """Return the figure that is the median of `samples`."""
    return Figure(name, median(samples), unit, tuple(samples), goal, note)


def missing(name: str, unit: str, why: str, *, goal: Goal | None = None) -> Figure:
    """Return a figure that could not be measured."""
    return Figure(name, None, unit, (), goal, why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """All that one measure found, with where and when."""

    key: str
    title: str
    mode: Mode
    #: How it was measured; the docstring of the measure.
    how: str
    figures: Sequence[Figure]
    #: The sizes of this mode, for the reader.
    sizes: dict[str, Any]
    #: What the figures were made of and has no place among them.
    raw: dict[str, Any] = field(default_factory=dict)
    #: Machine, programs, revision and date.
    facts: dict[str, Any] = field(default_factory=dict)
    #: How long the measure took.
    seconds: float = 0.0

    def to_json(self) -> str:
        """Return the text that `from_json` reads."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Measurement:
        """Return what `to_json` wrote; `ValueError` for another format."""
        found = json.loads(text)
        if found.pop("format", None) != FORMAT:
            raise ValueError("results of another format")
        figures = tuple(_figure(each) for each in found.pop("figures"))
        return cls(**{**found, "mode": Mode(found["mode"]), "figures": figures})


def _figure(found: dict[str, Any]) -> Figure:
    goal = found["goal"]
    read = None if goal is None else Goal(Relation(goal["relation"]), goal["bound"])
    return Figure(**{**found, "samples": tuple(found["samples"]), "goal": read})


def folder_of(results: Path, mode: Mode) -> Path:
    """Return the folder that holds the results of one mode, so that a quick run never replaces a full one."""
    return results if mode is Mode.FULL else results / mode.value


def save(measurement: Measurement, results: Path) -> Path:
    """Write `measurement` below `results`, in place of the last one of its mode, and return the file."""
    folder = folder_of(results, measurement.mode)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{measurement.key}.json"
    file.write_text(measurement.to_json(), encoding="utf-8")
    return file


def load_all(results: Path, mode: Mode) -> dict[str, Measurement]:
    """Return the last measurements of a mode by key."""
    found = (
        Measurement.from_json(file.read_text(encoding="utf-8")) for file in folder_of(results, mode).glob("*.json")
    )
    return {measurement.key: measurement for measurement in found}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a measure hands back, before it is known where and when it was taken."""

    figures: Sequence[Figure]
    sizes: dict[str, Any]
    raw: dict[str, Any] = field(default_factory=dict)
