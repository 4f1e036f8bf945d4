import os
from uuid import uuid4

from workers.marks import Marks


def in_a_child(work: object) -> None:
    """Do it in a forked process that dies without cleaning up."""
    assert callable(work)
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(1)
    os.waitpid(pid, 0)


def test_what_a_child_died_in_is_known_to_its_parent() -> None:
    marks, (earlier, last, other) = Marks(), (str(uuid4()) for _ in range(3))

    def die() -> None:
        marks.mark(earlier)
        marks.mark(None)
        marks.mark(last)

    in_a_child(die)
    assert marks.marked([earlier, last, other]) == {last}


def test_a_child_that_was_at_nothing_leaves_no_mark() -> None:
    marks, attempt = Marks(), str(uuid4())

    def die() -> None:
        marks.mark(attempt)
        marks.mark(None)

    in_a_child(die)
    assert marks.marked([attempt]) == set()
    assert marks.marked([]) == set()


def test_a_mark_is_found_in_its_place_only() -> None:
    marks = Marks()
    marks.mark("00000000-0000-4000-8000-00000000abcd")
    assert marks.marked(["00000000-0040-0080-0000-0000000abcd0", "00000000-0000-4000-8000-00000000abcd"]) == {
        "00000000-0000-4000-8000-00000000abcd"
    }
