import base64
import dataclasses
import hashlib
import json
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery
from worker_process import ROOT, StartWorker, WorkerProcess, is_gone
from worker_stage import Stage

from backfill import DAG
from backfill.config import Settings
from backfill.embedded import Servers
from backfill.executors import CeleryExecutor, ExecutorContext, Mailbox, broker
from backfill.executors.environment import settings_environment
from backfill.messages import TASK_NAME, Attempt, DagSource
from backfill.operators import PythonOperator
from workers.presence import LIFETIME

WaitUntil = Callable[..., None]

#: Without these a worker waits a second for others to introduce themselves.
QUICK_START = ("--without-mingle", "--without-gossip")


@pytest.fixture
def start_worker(settings: Settings, tmp_path: Path, wait_until: WaitUntil) -> Iterator[StartWorker]:
    """Return a function that starts a worker and waits until it listens."""
    with ExitStack() as workers:

        def start(*arguments: str, environment: dict[str, str] | None = None, **changes: Any) -> WorkerProcess:
            changed = settings.override("test", changes)
            log = tmp_path / f"worker-{time.monotonic_ns()}.log"
            worker = workers.enter_context(WorkerProcess(changed, log, [*arguments, *QUICK_START], environment))
            wait_until(lambda: worker.presence or worker.ended(), "the worker listens")
            assert not worker.ended(), log.read_text()
            return worker

        yield start


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder in which tasks leave files, and wait for some."""
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


def moody(root: str) -> Callable[[str], None]:
    """Return a task that ends its process on days for which there is a file."""

    def run(ds: str) -> None:
        if Path(root, f"deadly-{ds}").exists():
            os._exit(3)

    return run


def computes(root: str) -> Callable[[], None]:
    """Return a task that is in C code for minutes, in which no signal reaches it."""

    def run() -> None:
        Path(root, "computes.begun").touch()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000_000)

    return run


def dag_of(place: Path) -> DAG:
    """Return a DAG whose tasks do what their names say, with files in `place`."""
    root = str(place)

    def begin(name: str) -> None:
        Path(root, f"{name}.pid").write_text(str(os.getpid()))
        Path(root, f"{name}.begun").touch()

    def quick() -> str:
        begin("quick")
        return "done"

    def waits() -> None:
        begin("waits")
        while not Path(root, "go").exists():
            time.sleep(0.01)

    def hangs() -> None:
        begin("hangs")
        time.sleep(300)

    def exits() -> None:
        begin("exits")
        os._exit(3)

    def crashes() -> None:
        begin("crashes")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), signal.SIGSEGV)

    def fails() -> None:
        raise ValueError("no good")

    with DAG("work", start_date=datetime(2024, 1, 1, tzinfo=UTC)) as dag:
        for function in (quick, waits, hangs, exits, crashes, fails):
            PythonOperator(task_id=function.__name__, python_callable=function, retries=1)
        PythonOperator(task_id="moody", python_callable=moody(root))
        PythonOperator(task_id="computes", python_callable=computes(root))
    return dag


@pytest.fixture
def stage(engine: sa.Engine, settings: Settings, place: Path) -> Stage:
    return Stage(engine, settings, dag_of(place))


def begun(place: Path, name: str) -> bool:
    return (place / f"{name}.begun").exists()


def pid_of(place: Path, name: str) -> int:
    return int((place / f"{name}.pid").read_text())


def test_a_worker_runs_what_is_in_its_queue_and_tells(
    start_worker: StartWorker, stage: Stage, wait_until: WaitUntil
) -> None:
    worker = start_worker("-c", "1")
    attempts = [stage.queue("quick"), stage.queue("fails"), stage.queue("quick", day=1)]
    bundle = stage.bundle(*attempts)
    worker.send(bundle)
    wait_until(lambda: len(worker.events(bundle.stream)) == 3, "all events have come")
    assert [event.state for event in worker.events(bundle.stream)] == ["success", "up_for_retry", "success"]
    assert [stage.state(attempt) for attempt in attempts] == ["success", "up_for_retry", "success"]
    assert re.fullmatch(r"backfill-\d+@.+", stage.column(attempts[0], "hostname"))
    assert 0 < worker.client.ttl(bundle.stream) <= 86400
    wait_until(lambda: "ValueError: no good" in worker.log.read_text(), "the worker has said that one failed")
    assert "Traceback" not in worker.log.read_text()
    assert "pong" in celery(worker, "inspect", "ping")


def celery(worker: WorkerProcess, *arguments: str) -> str:
    """Return what a command of Celery says about the workers."""
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "workers", *arguments],
        cwd=ROOT,
        env=settings_environment(worker.settings, os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_workers_say_that_they_are_there_and_take_their_leave(start_worker: StartWorker, wait_until: WaitUntil) -> None:
    unnamed = start_worker("-c", "1")
    assert unnamed.presence is not None
    assert unnamed.presence["key"].startswith(f"backfill:worker:backfill-{unnamed.process.pid}@")
    unnamed.process.kill()
    unnamed.process.wait()
    unnamed.client.flushall()

    worker = start_worker("-c", "1", "-n", "me@%h", "-Q", "backfill,gpu")
    presence = worker.presence
    assert presence is not None
    assert presence["key"].startswith("backfill:worker:me@")
    assert (presence["queues"], presence["concurrency"]) == (["backfill", "gpu"], 1)
    assert 0 < worker.client.ttl(presence["key"]) <= LIFETIME.total_seconds()
    worker.process.terminate()
    wait_until(worker.ended, "the worker has ended")
    assert worker.process.returncode == os.EX_OK
    assert worker.presence is None


def test_children_that_die_are_reported_and_replaced(
    start_worker: StartWorker, stage: Stage, wait_until: WaitUntil
) -> None:
    worker = start_worker("-c", "1")
    exiting, crashing = stage.queue("exits"), stage.queue("crashes")
    unbegun, later = stage.queue("quick"), stage.queue("quick", day=1)
    bundle = stage.bundle(exiting, unbegun)
    worker.send(bundle, stage.bundle(crashing), stage.bundle(later))
    wait_until(lambda: len(worker.events(bundle.stream)) == 4, "all was reported")
    events = {event.attempt_id: (event.state, event.infrastructure) for event in worker.events(bundle.stream)}
    assert events == {
        exiting.attempt_id: ("failed", True),
        unbegun.attempt_id: ("none", False),
        crashing.attempt_id: ("failed", True),
        later.attempt_id: ("success", False),
    }
    assert [stage.state(attempt) for attempt in (exiting, crashing, later)] == ["running", "running", "success"]
    assert stage.row(unbegun) == ("none", None, 1, None, 0)
    assert "Segmentation fault" in stage.log(crashing)


def known_to_be_short(worker: WorkerProcess, stage: Stage, wait_until: WaitUntil, task_id: str) -> None:
    """Let the one child learn that a task is short, so that it claims several at once."""
    for day in range(20, 23):
        attempt = stage.queue(task_id, day=day)
        worker.send(stage.bundle(attempt))
        wait_until(lambda attempt=attempt: stage.state(attempt) == "success", "it has learnt")  # type: ignore[misc]


def test_of_what_a_dying_child_held_only_the_one_that_it_died_in_has_to_answer_for_it(
    start_worker: StartWorker, stage: Stage, wait_until: WaitUntil, place: Path
) -> None:
    worker = start_worker("-c", "1")
    known_to_be_short(worker, stage, wait_until, "moody")
    (place / "deadly-2024-01-02").touch()
    attempts = [stage.queue("moody", day=day) for day in range(4)]
    bundle = stage.bundle(*attempts)
    sent = len(worker.events(bundle.stream))
    worker.send(bundle)
    wait_until(lambda: len(worker.events(bundle.stream)) == sent + 4, "all was reported")
    events = {event.attempt_id: event for event in worker.events(bundle.stream)[sent:]}
    said = [events[attempt.attempt_id] for attempt in attempts]
    assert (said[1].state, said[1].infrastructure, said[1].alone) == ("failed", True, False)
    for event in (said[0], *said[2:]):  # of the first it cannot be told any more that it had ended
        assert event.state == "success" or event.alone or event.state == "none"
        assert not (event.infrastructure and not event.alone)


def order_to_look(worker: WorkerProcess, stage: Stage, *attempts: Attempt) -> None:
    """Give the order as a coordinator does after a takeover, which knows nothing of what was sent."""
    executor = CeleryExecutor()
    context = ExecutorContext(
        job_id=stage.job_id,
        settings=worker.settings,
        database_url=worker.settings.database.url,
        broker_url=worker.settings.celery.broker_url,
        dag_source=DagSource("work"),
        mailbox=Mailbox(),
    )
    executor.start(context)
    executor.terminate([attempt.attempt_id for attempt in attempts])
    executor.end()


def test_an_order_to_look_stops_what_is_not_current_any_more_at_once(
    start_worker: StartWorker, stage: Stage, wait_until: WaitUntil, place: Path
) -> None:
    never = {"task.heartbeat_interval": 3600, "task.heartbeat_timeout": 14400}
    worker = start_worker("-c", "2", **never)
    hanging, waiting = stage.queue("hangs"), stage.queue("waits")
    worker.send(stage.bundle(hanging), stage.bundle(waiting))
    wait_until(lambda: begun(place, "hangs") and begun(place, "waits"), "both tasks run")
    stage.set(hanging, state="skipped")
    order_to_look(worker, stage, hanging, waiting)
    wait_until(lambda: "not current any more; it was stopped" in stage.log(hanging), "the task was stopped")
    (place / "go").touch()
    wait_until(lambda: stage.state(waiting) == "success", "the other task was left alone")
    assert stage.state(hanging) == "skipped"


def test_an_order_to_look_is_followed_while_the_task_is_in_c_code(
    start_worker: StartWorker, stage: Stage, wait_until: WaitUntil, place: Path
) -> None:
    worker = start_worker("-c", "1", **{"task.heartbeat_interval": 3600, "task.heartbeat_timeout": 14400})
    computing = stage.queue("computes")
    worker.send(stage.bundle(computing))
    wait_until(lambda: begun(place, "computes"), "the task runs")
    before = stage.column(computing, "heartbeat_at")
    order_to_look(worker, stage, computing)
    wait_until(lambda: stage.column(computing, "heartbeat_at") > before, "its process has looked at its row")


def test_a_child_that_is_told_to_stop_fails_its_attempt_and_goes_on(
    start_worker: StartWorker, stage: Stage, wait_until: WaitUntil, place: Path
) -> None:
    worker = start_worker("-c", "1")
    terminated, revoked, later = stage.queue("hangs"), stage.queue("hangs", day=1), stage.queue("quick")
    worker.send(stage.bundle(terminated))
    wait_until(lambda: begun(place, "hangs"), "the task runs")
    os.kill(pid_of(place, "hangs"), signal.SIGTERM)
    wait_until(lambda: stage.state(terminated) == "up_for_retry", "the attempt has ended")
    assert stage.row(terminated).error == "the task's process was told to stop (SIGTERM)"

    (place / "hangs.begun").unlink()
    worker.send(stage.bundle(revoked))
    wait_until(lambda: begun(place, "hangs"), "the next task runs")
    with Celery("test", broker=worker.settings.celery.broker_url, set_as_current=False) as app:
        app.control.revoke(revoked.attempt_id, terminate=True)
    wait_until(lambda: stage.state(revoked) == "up_for_retry", "that attempt has ended too")

    worker.send(stage.bundle(later))
    wait_until(lambda: stage.state(later) == "success", "the next attempt was run")


def test_messages_that_are_none_of_ours_are_dropped(
    start_worker: StartWorker, stage: Stage, wait_until: WaitUntil
) -> None:
    worker = start_worker("-c", "1")
    attempt = stage.queue("quick")
    bodies: list[Any] = [None, "text", {"v": 0}, {"v": 1}, [1, 2]]
    with Celery("test", broker=worker.settings.celery.broker_url, set_as_current=False) as app:
        for body in bodies:
            worker.send_body(app, body)
    worker.client.lpush("backfill", "no message at all")
    worker.send(stage.bundle(attempt))
    wait_until(lambda: stage.state(attempt) == "success", "the next message was read")
    assert worker.log.read_text().count("It is dropped.") == len(bodies)


class Touch:
    """What would leave a file behind if it were unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def changed(raw: bytes, part: str, **changes: object) -> bytes:
    """Return an entry of the queue with some fields of its `part`, or of its own, replaced."""
    entry = json.loads(raw)
    (entry[part] if part else entry).update(changes)
    return json.dumps(entry).encode()


def body_of(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def test_broken_entries_of_the_queue_leave_the_worker_alive(
    start_worker: StartWorker, stage: Stage, place: Path, wait_until: WaitUntil
) -> None:
    worker = start_worker("-c", "1")
    children = worker.children()
    with Celery("test", broker=worker.settings.celery.broker_url, set_as_current=False) as app:
        app.send_task(TASK_NAME, ({},), task_id=str(uuid.uuid4()), queue="elsewhere")
    proper: Any = worker.client.lpop("elsewhere")
    pickled = base64.b64encode(pickle.dumps(Touch(place / "unpickled"))).decode()
    broken = [
        b"{not JSON",
        b"\xff\xfe",
        b"[" * 100_000,
        changed(proper, "", **{"body": pickled, "content-type": "application/x-python-serialize"}),
        changed(proper, "", body=body_of(f"[[{'[' * 100_000}")),
        changed(proper, "", body=body_of(f"[[{'[' * 500}{']' * 500}], {{}}, {{}}]")),
        changed(proper, "", body=body_of('[[{"v": 999, "attempts": [[1, ["d", "t", "r", -1], "id", 1]]}], {}, {}]')),
        changed(proper, "headers", task="os.system"),
        changed(proper, "headers", id="no uuid"),
        changed(proper, "headers", id=None, eta="never", timelimit="x"),
        changed(proper, "properties", delivery_tag=["x"]),
    ]
    attempt, forged = stage.queue("quick"), stage.queue("waits")
    worker.client.lpush("backfill", *broken)
    worker.send(stage.bundle(dataclasses.replace(forged, attempt_id=str(uuid.uuid4()))), stage.bundle(attempt))
    wait_until(lambda: stage.state(attempt) == "success", "the next message was read")
    assert stage.state(forged) == "queued"
    assert not (place / "unpickled").exists()
    assert not worker.ended()
    assert worker.children() == children
    assert worker.log.read_text().count("dropped") == len(broken)


@pytest.mark.parametrize("remapped", [False, True], ids=["plain", "REMAP_SIGTERM"])
def test_a_worker_that_stops_lets_tasks_end_and_hands_back_the_others(
    remapped: bool, start_worker: StartWorker, stage: Stage, wait_until: WaitUntil, place: Path
) -> None:
    environment = {"REMAP_SIGTERM": "SIGQUIT"} if remapped else {}
    worker = start_worker("-c", "2", environment=environment, **{"worker.soft_shutdown_timeout": 1})
    ending, hanging, unbegun = stage.queue("waits"), stage.queue("hangs"), stage.queue("quick")
    worker.send(stage.bundle(ending), stage.bundle(hanging, unbegun))
    wait_until(lambda: begun(place, "waits") and begun(place, "hangs"), "both tasks run")
    worker.process.terminate()
    (place / "go").touch()
    wait_until(worker.ended, "the worker has ended")
    assert stage.state(ending) == "success"
    assert stage.row(hanging) == ("none", None, 1, None, 0)
    assert stage.row(unbegun) == ("none", None, 1, None, 0)
    assert not begun(place, "quick")
    events = {event.attempt_id: event.state for event in worker.events(stage.bundle(ending).stream)}
    assert events == {ending.attempt_id: "success", hanging.attempt_id: "none", unbegun.attempt_id: "none"}
    assert worker.process.returncode == os.EX_OK, worker.log.read_text()


def test_a_worker_does_not_wait_once_its_tasks_have_ended(
    start_worker: StartWorker, stage: Stage, wait_until: WaitUntil, place: Path
) -> None:
    worker = start_worker("-c", "1", **{"worker.soft_shutdown_timeout": 3600})
    attempt = stage.queue("waits")
    worker.send(stage.bundle(attempt))
    wait_until(lambda: begun(place, "waits"), "the task runs")
    worker.process.terminate()
    (place / "go").touch()
    wait_until(worker.ended, "the worker has ended")
    assert stage.state(attempt) == "success"


def test_a_worker_told_twice_hands_back_at_once(
    start_worker: StartWorker, stage: Stage, wait_until: WaitUntil, place: Path
) -> None:
    worker = start_worker("-c", "1", **{"worker.soft_shutdown_timeout": 3600})
    attempt = stage.queue("hangs")
    worker.send(stage.bundle(attempt))
    wait_until(lambda: begun(place, "hangs"), "the task runs")
    worker.process.terminate()
    wait_until(lambda: "stops: its tasks have" in worker.log.read_text(), "the worker was told")
    worker.process.terminate()
    wait_until(worker.ended, "the worker has ended")
    assert stage.row(attempt) == ("none", None, 1, None, 0)


def test_a_signal_to_the_whole_group_hands_back_too(
    start_worker: StartWorker, stage: Stage, wait_until: WaitUntil, place: Path
) -> None:
    worker = start_worker("-c", "1", **{"worker.soft_shutdown_timeout": 3600})
    attempt = stage.queue("hangs")
    worker.send(stage.bundle(attempt))
    wait_until(lambda: begun(place, "hangs"), "the task runs")
    os.killpg(worker.process.pid, signal.SIGTERM)
    wait_until(worker.ended, "the worker has ended")
    assert stage.row(attempt) == ("none", None, 1, None, 0)


def test_children_of_a_worker_that_was_killed_stop_and_say_so(
    start_worker: StartWorker, stage: Stage, wait_until: WaitUntil, place: Path
) -> None:
    worker = start_worker("-c", "2")
    attempt = stage.queue("hangs")
    bundle = stage.bundle(attempt)
    worker.send(bundle)
    wait_until(lambda: begun(place, "hangs"), "the task runs")
    children = worker.children()
    assert len(children) == 2
    worker.process.kill()
    wait_until(lambda: all(is_gone(pid) for pid in children), "the children are gone")
    assert stage.state(attempt) == "running"
    (event,) = worker.events(bundle.stream)
    assert (event.attempt_id, event.state, event.infrastructure) == (attempt.attempt_id, "failed", True)


def test_a_process_that_cannot_renew_its_heartbeat_is_killed(
    start_worker: StartWorker, stage: Stage, wait_until: WaitUntil, place: Path, databases: Any
) -> None:
    worker = start_worker("-c", "1", **{"task.heartbeat_interval": 0.1, "task.heartbeat_timeout": 1})
    attempt = stage.queue("hangs")
    bundle = stage.bundle(attempt)
    worker.send(bundle)
    wait_until(lambda: begun(place, "hangs"), "the task runs")
    name = stage.engine.url.database
    with closed_database(databases, name):
        wait_until(lambda: is_gone(pid_of(place, "hangs")), "the process was killed")
    stage.engine.dispose()  # our own connections were cut, too
    wait_until(lambda: any(event.infrastructure for event in worker.events(bundle.stream)), "the loss was reported")
    assert stage.state(attempt) == "running"


class closed_database:  # noqa: N801  # reads as a with statement
    """A database to which nobody can connect, for the length of a block."""

    def __init__(self, databases: Any, name: str | None) -> None:
        self._databases = databases
        self._name = name

    def __enter__(self) -> None:
        self._databases._execute(f"alter database {self._name} with allow_connections false")
        self._databases._execute(
            f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{self._name}'"
        )

    def __exit__(self, *_: object) -> None:
        self._databases._execute(f"alter database {self._name} with allow_connections true")


def test_a_result_waits_for_a_database_that_is_away(
    start_worker: StartWorker, stage: Stage, wait_until: WaitUntil, place: Path, databases: Any
) -> None:
    worker = start_worker("-c", "1")
    attempt = stage.queue("waits")
    worker.send(stage.bundle(attempt))
    wait_until(lambda: begun(place, "waits"), "the task runs")
    with closed_database(databases, stage.engine.url.database):
        (place / "go").touch()
        wait_until(lambda: "The task succeeded" in stage.log(attempt), "the task has ended")
    stage.engine.dispose()  # our own connections were cut, too
    wait_until(lambda: stage.state(attempt) == "success", "its end was written")


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["-P", "threads"], {}, "Tasks need processes that can be stopped; start the worker with -P prefork."),
        ([], {"BACKFILL__TASK__HEARTBEAT_TIMEOUT": "6"}, "task.heartbeat_timeout is 6 s, less than four times"),
        ([], {"BACKFILL__TASK__SPEED": "6"}, "sets 'task.speed', which is no setting"),
    ],
)
def test_a_worker_that_cannot_work_says_why_in_one_sentence(
    arguments: list[str], environment: dict[str, str], sentence: str, settings: Settings, tmp_path: Path
) -> None:
    with WorkerProcess(settings, tmp_path / "worker.log", arguments, environment) as worker:
        assert worker.process.wait(60) == 2
    assert sentence in worker.log.read_text()
    assert "Traceback" not in worker.log.read_text()


def test_without_a_url_a_worker_uses_the_embedded_server(
    home: Path, database_url: str, tmp_path: Path, wait_until: WaitUntil
) -> None:
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "workers", "worker", "-c", "1", *QUICK_START],
            cwd=ROOT,
            env=os.environ | {"BACKFILL_HOME": str(home), "BACKFILL__DATABASE__URL": database_url},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        with Servers(home) as servers:
            url = servers.acquire(database=False).broker_url
            assert url is not None
            with broker.connect(url, name="test") as client:
                wait_until(lambda: client.keys("backfill:worker:*") or process.poll(), "the worker is there")
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(60)


def test_importing_the_app_starts_nothing_and_reads_no_settings() -> None:
    code = "import workers.app, workers.tasks; print(workers.app.app.main)"
    environment = os.environ | {"BACKFILL__NONSENSE__KEY": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "backfill\n"


def test_paths_of_logs_are_known_without_celery() -> None:
    code = "import sys, workers.log_paths; assert 'celery' not in sys.modules and 'sqlalchemy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
