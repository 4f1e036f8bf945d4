"""CPU time is taken from where the kernel keeps it."""

import os
import subprocess
import sys
import threading

import pytest
from waiting import wait_until

from benchmarks.cpu import process_seconds, threads_seconds, tree_seconds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks read /proc")

#: Uses a fifth of a second of CPU, then says so and waits to be told to end.
BUSY = """
import sys, time
while time.process_time() < 0.2:
    pass
print("done", flush=True)
sys.stdin.read()
"""


def test_a_tree_includes_its_children_while_they_live_and_when_they_are_gone():
    before = tree_seconds(os.getpid())
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        alive = tree_seconds(os.getpid()) - before
        alone = process_seconds(child.pid)
    assert alone >= 0.15
    assert alive >= 0.15
    assert tree_seconds(os.getpid()) - before >= 0.15


def test_a_thread_of_a_process_counts():
    stop = threading.Event()

    def work():
        while not stop.is_set():
            pass

    before = threads_seconds(os.getpid())
    worker = threading.Thread(target=work)
    worker.start()
    try:
        wait_until(lambda: threads_seconds(os.getpid()) > before, "the thread has used CPU")
    finally:
        stop.set()
        worker.join()


def test_a_process_that_is_gone_has_used_nothing():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert process_seconds(child.pid) == 0
