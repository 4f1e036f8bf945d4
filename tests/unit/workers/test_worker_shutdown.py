"""A worker that is told to stop."""

from __future__ import annotations

import subprocess
import sys

#: Lets stderr lead to a pipe whose reader has gone, as after the death of the process that read it.
UNREAD = """
import os
read, write = os.pipe()
os.dup2(write, 2)
os.close(write)
os.close(read)
from workers.shutdown import _say
_say("Worker x stops")
print("and goes on")
"""


def test_it_stops_though_nobody_reads_what_it_says() -> None:
    said = subprocess.run([sys.executable, "-c", UNREAD], capture_output=True, text=True, check=False, timeout=60)
    assert (said.returncode, said.stdout) == (0, "and goes on\n")
