"""Stands in for `workers.local`: does what the task id says, so that a test can have a process end in any way."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from backfill.messages import Attempt, Bundle, ExecutorEvent
from backfill.states import TaskInstanceState


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  # the protocol


def report(attempt: Attempt, state: TaskInstanceState) -> None:
    say(ExecutorEvent(attempt.task_instance_id, attempt.attempt_id, state, f"pid {os.getpid()}").encode())


def succeed(attempt: Attempt) -> None:
    report(attempt, TaskInstanceState.RUNNING)
    report(attempt, TaskInstanceState.SUCCESS)


def sleep(attempt: Attempt) -> None:
    report(attempt, TaskInstanceState.RUNNING)
    time.sleep(600)


def ignore_sigterm(attempt: Attempt) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep(attempt)


def hand_back_on_sigterm(attempt: Attempt) -> None:
    def hand_back(*_: object) -> None:
        report(attempt, TaskInstanceState.NONE)
        sys.exit(0)

    signal.signal(signal.SIGTERM, hand_back)
    sleep(attempt)


def start_another(attempt: Attempt) -> None:
    process = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    say(ExecutorEvent(1, attempt.attempt_id, TaskInstanceState.RUNNING, str(process.pid)).encode())
    os.kill(os.getpid(), signal.SIGKILL)


def succeed_and_die(attempt: Attempt) -> None:
    report(attempt, TaskInstanceState.SUCCESS)
    os._exit(1)


def write_garbage(attempt: Attempt) -> None:
    say("this is no event")
    say('["nor", "this"]')
    succeed(attempt)


DEEDS: dict[str, Callable[[Attempt], None]] = {
    "succeed": succeed,
    "lose_the_claim": lambda _: None,
    "sleep": sleep,
    "ignore_sigterm": ignore_sigterm,
    "hand_back_on_sigterm": hand_back_on_sigterm,
    "exit_3": lambda _: os._exit(3),
    "kill_itself": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "start_another": start_another,
    "succeed_and_die": succeed_and_die,
    "write_garbage": write_garbage,
}

for line in sys.stdin:
    for attempt in Bundle.decode(json.loads(line)).attempts:
        DEEDS[attempt.key.task_id](attempt)
    say("")
