"""Processes that one command starts for itself, shows the output of, starts again when they die, and stops at its end."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from backfill.coordinator.own_process import OwnProcess
from backfill.exceptions import Interrupted, UsageError

#: Seconds that what a process wrote last may take to be read after its end.
_LAST_WORDS = 2.0

#: Takes a line that a member wrote, or that is about it: its name, and the line.
Say = Callable[[str, str], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """What a member of the household is to do."""

    name: str
    #: Arguments of `backfill`.
    arguments: Sequence[str]
    #: How long it may take to end when it is told to, before it is killed; None: as long as it needs.
    stop_within: timedelta | None = None
    #: Where it cannot work as it is set up, it is left out, and the others go on without it.
    optional: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


class Member:
    """One process of the household, and whoever watches it."""

    def __init__(self, post: Post, environment: Mapping[str, str], say: Say, gave_up: Callable[[], object]) -> None:
        self.post = post
        command = [sys.executable, "-m", "backfill", *post.arguments]
        self._process = OwnProcess(command, {**environment, **post.environment})
        self._say = say
        self._gave_up = gave_up
        self._watcher = threading.Thread(target=self._watch, name=f"watch-{post.name}", daemon=True)
        #: How the process ended that was told to stop, or that cannot work.
        self.exit_code: int | None = None

    def start(self) -> None:
        """Start the process, and whoever watches it."""
        self._watcher.start()

    def stop(self) -> None:
        """Tell the process to stop, and wait for its end; kill it when its time is over."""
        code = self._process.stop(self.post.stop_within, self._tell_overdue)
        if code is not None:
            self.exit_code = code
            self._watcher.join(_LAST_WORDS)

    def kill(self) -> None:
        """Kill the process and its children at once. Safe in a signal handler."""
        self._process.kill()

    def _tell_overdue(self) -> None:
        within = self.post.stop_within or timedelta()
        self._say(self.post.name, f"does not stop within {within.total_seconds():.0f} s, and is killed")

    def _watch(self) -> None:
        """Start the process, and start it again whenever it ends by itself, after growing pauses."""
        while (process := self._process.launch(subprocess.PIPE)) is not None:
            code = self._listen(process)
            if self._process.is_told_to_stop():
                return
            if code == UsageError.exit_code:
                self._give_up(code)
                return
            pause = self._process.pause_before_restart()
            self._say(self.post.name, f"{_ended(code)}; it is started again {f'in {pause:.0f} s' if pause else 'now'}")
            self._process.rest(pause)

    def _listen(self, process: subprocess.Popen[bytes]) -> int:
        """Pass on what the process writes until it ends, and return how it did.

        Processes that it leaves behind may keep its output open; they are not waited for.
        """
        reader = threading.Thread(target=self._pass_on, args=(process,), name=f"read-{self.post.name}", daemon=True)
        reader.start()
        code = process.wait()
        reader.join(_LAST_WORDS)
        return code

    def _pass_on(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as output:
            for line in output:
                self._say(self.post.name, line.decode("utf-8", "backslashreplace").rstrip("\r\n"))

    def _give_up(self, code: int) -> None:
        self.exit_code = code
        if self.post.optional:
            self._say(self.post.name, "cannot work as it is set up, and is left out")
        else:
            self._gave_up()


class Household:
    """Members that work until the command is told to stop; they are stopped one after the other, in the order of their posts."""

    def __init__(
        self, posts: Sequence[Post], *, environment: Mapping[str, str], say: Say, tell: Callable[[str], object]
    ) -> None:
        # its put is reentrant, so that a signal handler may wake the main thread wherever it is
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._tell = tell
        self._told_to_stop = 0
        self.members = [Member(post, environment, say, lambda: self._wakes.put(None)) for post in posts]

    def interrupt(self) -> None:
        """Ask for the end, called from a signal handler: the second time kills all members, the third ends this process."""
        self._told_to_stop += 1
        if self._told_to_stop == 1:
            self._wakes.put(None)
            return
        for member in self.members:
            member.kill()
        if self._told_to_stop > 2:  # noqa: PLR2004  # whoever asks three times does not want to wait
            os._exit(Interrupted.exit_code)

    def run(self) -> int:
        """Let the members work until the end is asked for, or one that is needed cannot; stop them, and return the exit code.

        0, 130 if a member says so or if they were killed, 2 if one that is needed cannot work as it is set up.
        """
        try:
            for member in self.members:
                member.start()
            self._wakes.get()
        finally:
            self._stop_all()
        codes = {member.exit_code for member in self.members if not member.post.optional}
        if self._told_to_stop > 1 or Interrupted.exit_code in codes:
            return Interrupted.exit_code
        return UsageError.exit_code if UsageError.exit_code in codes else 0

    def _stop_all(self) -> None:
        self._tell("Stopping, in order; Ctrl-C once more kills at once.")
        try:
            for member in self.members:
                member.stop()
        finally:
            for member in self.members:
                member.kill()


def _ended(code: int) -> str:
    """Say how a process ended."""
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
