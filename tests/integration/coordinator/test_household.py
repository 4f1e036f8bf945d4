"""Processes that end by themselves: started again, left out, or the end of all."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import pytest

from backfill.config import Settings
from backfill.coordinator.household import Household, Post
from backfill.executors.environment import settings_environment

WaitUntil = Callable[..., None]

NOBODY = {"BACKFILL__DATABASE__URL": "postgresql://nobody@127.0.0.1:1/none"}
#: Ends at once with 2, with 69, and not at all.
WRONG = Post(name="wrong", arguments=["worker", "-q", " , "])
SHORT = Post(name="short", arguments=["db", "check"], environment=NOBODY)
LONG = Post(name="long", arguments=["coordinator"])


class House:
    """A household that runs in a thread, and what was said of it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.lines: list[str] = []
        self.codes: list[int] = []
        self._running: list[tuple[Household, threading.Thread]] = []

    def begin(self, *posts: Post) -> Household:
        household = Household(
            posts,
            environment=settings_environment(self._settings, os.environ),
            say=lambda name, line: self.lines.append(f"{name}: {line}"),
            tell=self.lines.append,
        )
        thread = threading.Thread(target=lambda: self.codes.append(household.run()))
        self._running.append((household, thread))
        thread.start()
        return household

    def end(self) -> int:
        """Wait for the end of the only one, and return its exit code."""
        ((_, thread),) = self._running
        thread.join(60)
        return self.codes[0]

    def close(self) -> None:
        for household, thread in self._running:
            if thread.is_alive():
                household.interrupt()
                thread.join(60)

    def said(self, text: str) -> bool:
        return any(text in line for line in self.lines)


@pytest.fixture
def house(settings: Settings) -> Iterator[House]:
    house = House(settings)
    yield house
    house.close()


def test_what_ends_again_and_again_is_started_after_growing_pauses(house: House, wait_until: WaitUntil) -> None:
    household = house.begin(SHORT)
    wait_until(lambda: house.said("started again in 1 s"), "it has ended twice", timeout=60)
    assert house.said("short: ended with exit code 69; it is started again now")
    household.interrupt()
    assert house.end() == 0


def test_one_that_cannot_work_as_it_is_set_up_ends_them_all(house: House) -> None:
    house.begin(LONG, WRONG)
    assert house.end() == 2
    assert house.said("wrong: Error: -q ' , ' names no queue; write names separated by commas.")


def test_one_that_may_be_missing_is_left_out(house: House, wait_until: WaitUntil) -> None:
    optional = Post(name="wrong", arguments=WRONG.arguments, optional=True)
    household = house.begin(LONG, optional)
    wait_until(lambda: house.said("wrong: cannot work as it is set up, and is left out"), "it is left out", timeout=60)
    wait_until(lambda: house.said("long: The coordinator waits for submitted jobs"), "the other goes on", timeout=60)
    household.interrupt()
    assert house.end() == 0
