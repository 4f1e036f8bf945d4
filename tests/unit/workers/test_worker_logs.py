# ruff: noqa: T201  # what is printed is what is tested
import errno
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backfill.config import Settings
from backfill.keys import TaskInstanceKey
from workers import logs
from workers.log_paths import log_path
from workers.logs import Capture, LogUnwritable, TaskLog
from workers.masking import Masker, secrets_of

ATTEMPT = "6f1f4f0e-6a3b-4a1c-9d3e-1f0a54a7d001"


@contextmanager
def captured(log: TaskLog) -> Iterator[None]:
    with Capture() as capture, capture.to(log):
        yield


def open_log(path: Path, mask: Masker | None = None) -> TaskLog:
    return TaskLog(str(path), attempt_id=ATTEMPT, hostname="worker-1@host", try_number=2, mask=mask or Masker(()))


def texts(path: Path) -> list[str]:
    """Return the lines of a log without their times."""
    return [line.split(" ", 1)[1] for line in path.read_text().splitlines() if not line.startswith(" ")]


def test_the_path_is_made_of_the_key_and_the_try() -> None:
    key = TaskInstanceKey("sales", "group.load", "backfill__2024-01-01T00:00:00+00:00")
    expected = "logs/sales/backfill__2024-01-01T00:00:00+00:00/group.load/try=3.log"
    assert log_path(Path("logs"), key, 3) == Path(expected)


def test_each_map_index_has_a_folder() -> None:
    path = log_path(Path("logs"), TaskInstanceKey("d", "t", "r", 11), 1)
    assert path == Path("logs/d/r/t/11/try=1.log")


@pytest.mark.parametrize(
    "name", ["..", ".", "", "../../etc", "/etc", "a/b", "a\\b", "x\x00y", "a" * 400, "ä" * 200, "...", "\ud800", "a\nb"]
)
def test_no_name_leads_out_of_the_log_folder(name: str, tmp_path: Path) -> None:
    path = log_path(tmp_path, TaskInstanceKey(name, name, name), 1)
    assert len(path.relative_to(tmp_path).parts) == 4
    assert path.resolve() == path
    assert all(len(part.encode()) <= 255 for part in path.parts)
    path.parent.mkdir(parents=True)


def test_different_names_have_different_paths() -> None:
    names = ["a", "a/", ".", "..", "", "%", "%2E", "%25", "a" * 300, "a" * 301, "a%2F"]
    assert len({log_path(Path(), TaskInstanceKey(name, "t", "r"), 1) for name in names}) == len(names)


def test_the_header_names_attempt_and_host(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "try=2.log"
    open_log(path).close()
    (header,) = path.read_text().splitlines()
    assert ATTEMPT in header
    assert "worker-1@host" in header
    assert f"pid {os.getpid()}" in header


def test_attempts_of_one_try_follow_each_other(tmp_path: Path) -> None:
    path = tmp_path / "try=2.log"
    for text in ("first", "second"):
        with open_log(path) as log:
            log.line("INFO", text)
    assert [text for text in texts(path) if "*" not in text] == ["INFO    first", "INFO    second"]
    assert len(texts(path)) == 4


def test_what_is_printed_or_logged_is_captured_with_times(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "try=1.log"
    with open_log(path) as log, captured(log):
        print("one")
        print("tw", end="")
        print("o")
        print("error", file=sys.stderr)
        logging.getLogger("anything").info("logged %d", 1)
        logging.getLogger("anything").debug("not shown")
        print("no line break", end="")
    assert texts(path)[1:] == [
        "STDOUT  one",
        "STDOUT  two",
        "STDERR  error",
        "INFO    logged 1",
        "STDOUT  no line break",
    ]
    assert capfd.readouterr() == ("", "")


def test_what_a_subprocess_writes_is_captured(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "try=1.log"
    with open_log(path) as log, captured(log):
        print("before")
        subprocess.run(["/bin/sh", "-c", "echo out; echo err >&2"], check=True)
        subprocess.run(["/bin/echo", "to the stream"], check=True, stdout=sys.stdout)
        print("after")
    lines = path.read_text().splitlines()[1:]
    assert [line.rsplit("  ", 1)[-1] for line in lines] == ["before", "out", "err", "to the stream", "after"]
    assert capfd.readouterr().out == ""


def test_the_process_writes_where_it_did_before_once_the_attempt_is_over(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    before = (sys.stdout, sys.stderr, root.handlers[:], root.level)
    with open_log(tmp_path / "try=1.log") as log, captured(log):
        root.addHandler(logging.StreamHandler(sys.stdout))
        root.setLevel(logging.DEBUG)
    assert (sys.stdout, sys.stderr, root.handlers[:], root.level) == before
    os.write(1, b"outside")
    assert capfd.readouterr().out == "outside"


def test_a_broken_log_record_does_not_fail_the_task(tmp_path: Path) -> None:
    path = tmp_path / "try=1.log"
    with open_log(path) as log, captured(log):
        logging.getLogger().info("%d", "no number")
        print("goes on")
    assert texts(path)[-1] == "STDOUT  goes on"


def test_text_that_no_encoding_has_is_written_escaped(tmp_path: Path) -> None:
    path = tmp_path / "try=1.log"
    with open_log(path) as log, captured(log):
        print("half \ud800 ä")
    assert texts(path)[-1] == "STDOUT  half \\ud800 ä"


def test_secrets_are_masked(tmp_path: Path) -> None:
    path = tmp_path / "try=1.log"
    with open_log(path, Masker(["p@ss word"])) as log, captured(log):
        print("p@ss word, p%40ss%20word")
        logging.getLogger().info("with p@ss word")
    assert texts(path)[1:] == ["STDOUT  ***, ***", "INFO    with ***"]


def test_the_secrets_are_those_of_the_settings() -> None:
    settings = Settings().override(
        "test",
        {
            "database.url": "postgresql://me:first%21@host/db?password=second",
            "celery.broker_url": "redis://:third@host/0",
            "core.secret_key": "fourth",
            "flower.password": "fifth",
        },
    )
    assert secrets_of(settings) == {"first%21", "second", "third", "fourth", "fifth"}
    assert Masker(secrets_of(settings))("first! second of host") == "*** *** of host"


def test_a_log_that_cannot_be_begun_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LogUnwritable, match=r"The log .*file/try=1.log cannot be written: Not a directory\."):
        open_log(tmp_path / "file" / "try=1.log")


def test_a_full_disk_is_found_before_the_task_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "os", FullDisk())
    with pytest.raises(LogUnwritable, match="No space left on device"):
        open_log(tmp_path / "try=1.log")


def test_a_disk_that_fills_up_later_does_not_fail_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_log(tmp_path / "try=1.log") as log:
        monkeypatch.setattr(logs, "os", FullDisk())
        with captured(log):
            print("lost")
        assert log.broken is not None
        assert log.broken.errno == errno.ENOSPC


class FullDisk:
    """The module `os` on a machine that has no room left."""

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def write(self, fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_one_capture_serves_one_log_after_the_other(tmp_path: Path) -> None:
    paths = [tmp_path / f"try={n}.log" for n in range(3)]
    with Capture() as capture:
        for path in paths:
            with open_log(path) as log, capture.to(log):
                print("printed for", path.name)
                logging.getLogger("task").info("logged for %s", path.name)
                os.write(1, f"written for {path.name}\n".encode())
                sys.stdout.close()
                logging.getLogger().handlers[0].setFormatter(logging.Formatter("%(message)s changed"))
    for path in paths:
        said = path.read_text().splitlines()[1:]
        assert [line.partition("for ")[2] for line in said] == [path.name] * 3
