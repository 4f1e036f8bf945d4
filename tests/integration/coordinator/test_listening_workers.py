"""Whether some worker would take a message."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from backfill.coordinator.broker import a_worker_listens, connect
from workers.presence import Presence, presence_key

HOST = socket.gethostname()


def announce(url: str, hostname: str) -> None:
    with connect(url) as client:
        presence = Presence(hostname=hostname, concurrency=1, queues=["backfill"])
        client.set(presence_key(hostname), presence.body())


@pytest.fixture
def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        return process.pid


@pytest.mark.parametrize(
    "hostname",
    [f"backfill-{os.getpid()}@{HOST}", "backfill-1@elsewhere", f"mine@{HOST}"],
    ids=["here", "elsewhere", "by a name of its own"],
)
def test_a_worker_that_says_so_listens_to_its_queues(broker_url: str, hostname: str) -> None:
    assert not a_worker_listens(broker_url, "backfill")
    announce(broker_url, hostname)
    assert a_worker_listens(broker_url, "backfill")
    assert not a_worker_listens(broker_url, "other")


def test_a_worker_of_this_machine_that_was_killed_does_not_listen(broker_url: str, dead_pid: int) -> None:
    announce(broker_url, f"backfill-{dead_pid}@{HOST}")
    assert not a_worker_listens(broker_url, "backfill")
    announce(broker_url, f"backfill-{dead_pid}@elsewhere")
    assert a_worker_listens(broker_url, "backfill")


def test_nobody_can_tell_while_the_broker_is_away() -> None:
    assert a_worker_listens("redis+socket:///nowhere.sock", "backfill")
