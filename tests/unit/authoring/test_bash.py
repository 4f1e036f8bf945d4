from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backfill import DAG
from backfill.exceptions import BackfillError, DagError, SkipTask
from backfill.operators import BashOperator
from backfill.operators.process_group import ProcessGroup


def bash(dag: DAG, command: str, **arguments: Any) -> BashOperator:
    return BashOperator(task_id="b", bash_command=command, dag=dag, **arguments)


def test_the_last_line_is_returned_and_every_line_is_logged(
    dag: DAG, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert run(bash(dag, "echo one; echo two >&2; printf three")) == "three"
    assert [record.getMessage() for record in caplog.records] == ["one", "two", "three"]
    assert run(bash(DAG("e"), "true")) == ""


def test_an_exit_code_other_than_zero_fails_with_what_was_said_last(dag: DAG, run: Any) -> None:
    with pytest.raises(
        BackfillError, match="The command of the task 'b' ended with exit code 3; it last said: out of luck"
    ):
        run(bash(dag, "echo out of luck; exit 3"))
    with pytest.raises(BackfillError, match="exit code -9"):
        run(bash(DAG("e"), "kill -9 $$"))


@pytest.mark.parametrize(
    ("code", "skips"), [(99, {}), (7, {"skip_on_exit_code": 7}), (8, {"skip_on_exit_code": [7, 8]})]
)
def test_some_exit_codes_skip(dag: DAG, run: Any, code: int, skips: dict[str, Any]) -> None:
    with pytest.raises(SkipTask, match=f"exit code {code}, which skips"):
        run(bash(dag, f"exit {code}", **skips))


def test_skipping_by_exit_code_can_be_turned_off(dag: DAG, run: Any) -> None:
    with pytest.raises(BackfillError, match="exit code 99"):
        run(bash(dag, "exit 99", skip_on_exit_code=None))


def test_env_replaces_the_environment_or_is_added_to_it(dag: DAG, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AROUND", "around")
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "d")
    command = "echo $AROUND,$OWN,$AIRFLOW_CTX_DAG_ID"
    assert run(bash(dag, command)) == "around,,d"
    assert run(bash(DAG("e"), command, env={"OWN": "{{ ds }}", "PATH": os.environ["PATH"]})) == ",2024-01-01,d"
    assert run(bash(DAG("f"), command, env={"OWN": "own"}, append_env=True)) == "around,own,d"


def test_it_runs_in_a_folder_of_its_own_or_in_the_one_given(dag: DAG, run: Any, tmp_path: Path) -> None:
    own = run(bash(dag, "touch x; pwd"))
    assert not Path(own).exists()
    assert Path(run(bash(DAG("e"), "pwd", cwd=str(tmp_path)))).samefile(tmp_path)
    with pytest.raises(BackfillError, match="cwd='/no/such/folder', which is no folder on this worker"):
        run(bash(DAG("f"), "pwd", cwd="/no/such/folder"))


def test_output_can_be_processed_and_in_another_encoding(dag: DAG, run: Any) -> None:
    assert run(bash(dag, "echo 42", output_processor=int)) == 42
    assert run(bash(DAG("e"), r"printf '\xfc'", output_encoding="latin-1")) == "ü"
    assert run(bash(DAG("f"), r"printf '\xfc'")) == "\\xfc"


@pytest.mark.parametrize("command", ["  ", 5, None])
def test_a_command_that_is_none_is_refused(dag: DAG, run: Any, command: Any) -> None:
    with pytest.raises(DagError, match="it takes a command as text"):
        run(bash(dag, command))


def alive(pid: int) -> bool:
    """Tell if a process runs (a zombie that nobody has waited for does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(predicate: Callable[[], bool], description: str) -> None:
    deadline = time.monotonic() + 30
    while not predicate():
        assert time.monotonic() < deadline, description
        threading.Event().wait(0.01)


def pid_in(file: Path) -> int:
    wait_until(lambda: file.exists() and file.read_text().strip() != "", f"{file} has a pid")
    return int(file.read_text())


def test_on_kill_ends_the_command_and_all_that_it_started(dag: DAG, prepare: Any, tmp_path: Path) -> None:
    operator, context = prepare(bash(dag, f"sleep 300 & echo $! > {tmp_path}/pid; wait"))
    errors: list[BaseException] = []

    def execute() -> None:
        try:
            operator.execute(context)
        except BackfillError as error:
            errors.append(error)

    thread = threading.Thread(target=execute)
    thread.start()
    pid = pid_in(tmp_path / "pid")
    operator.on_kill()
    thread.join(30)
    assert not thread.is_alive()
    assert "exit code -15" in str(errors[0])
    wait_until(lambda: not alive(pid), "the sleep has ended")


def test_an_exception_in_the_middle_ends_the_command(dag: DAG, prepare: Any, tmp_path: Path) -> None:
    operator, context = prepare(bash(dag, f"echo $$ > {tmp_path}/pid; echo line; sleep 300"))
    seen: list[int] = []

    class Refusing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(int((tmp_path / "pid").read_text()))
            raise TimeoutError

    operator.log.addHandler(handler := Refusing())
    operator.log.setLevel(logging.INFO)
    try:
        with pytest.raises(TimeoutError):
            operator.execute(context)
    finally:
        operator.log.removeHandler(handler)
        operator.log.setLevel(logging.NOTSET)
    assert not alive(seen[0])


KILLED = """
import sys
from backfill import DAG
from backfill.operators import BashOperator
with DAG("d"):
    BashOperator(task_id="b", bash_command=sys.argv[1]).unmap(-1, {}).execute({})
"""


def test_a_worker_that_is_killed_leaves_no_orphan(tmp_path: Path) -> None:
    command = f"sleep 300 & echo $! > {tmp_path}/inner; echo $$ > {tmp_path}/outer; wait"
    worker = subprocess.Popen([sys.executable, "-c", KILLED, command])
    inner, outer = pid_in(tmp_path / "inner"), pid_in(tmp_path / "outer")
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    wait_until(lambda: not alive(inner) and not alive(outer), "the command and its child have ended")


def test_a_command_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[ProcessGroup.__module__], "GRACE", 0.05)
    command = ["bash", "-c", f"trap '' TERM; echo $$ > {tmp_path}/pid; while true; do sleep 0.01; done"]
    with ProcessGroup(command, cwd=str(tmp_path), env=os.environ) as process:
        pid = pid_in(tmp_path / "pid")
        process.end()
        assert process.wait() == -signal.SIGKILL
    assert not alive(pid)
