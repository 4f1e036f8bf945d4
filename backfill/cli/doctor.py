"""`backfill doctor`: one line for each thing that must be right before a backfill can run."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import click
import redis
from sqlalchemy import Engine, text

from backfill import migrations
from backfill.bootstrap import open_runtime
from backfill.cli.broker import open_broker
from backfill.cli.command import Command
from backfill.cli.output import Column, Format, output_option, show_rows
from backfill.config import Settings, load_settings
from backfill.coordinator.broker import connect, living_workers
from backfill.exceptions import BackfillError
from backfill.executors.presences import WorkerPresence
from backfill.messages import WIRE_VERSION
from backfill.store.database import database_now, mask_url, repeat, server_name

#: Clocks that differ by less are as good as equal: logs can still be read side by side.
CLOCK_TOLERANCE = timedelta(seconds=1)
#: The age that a worker's presence may have: it renews it every three seconds.
PRESENCE_TOLERANCE = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one thing; `exit_code` is not 0 if nothing can run like that."""

    check: str
    state: str
    detail: str
    exit_code: int = 0


def _ok(check: str, detail: str) -> Finding:
    return Finding(check, "ok", detail)


def _warning(check: str, detail: str) -> Finding:
    return Finding(check, "warning", detail)


def _failed(check: str, error: BackfillError) -> Finding:
    return Finding(check, "failed", str(error), error.exit_code)


@click.command(cls=Command)
@output_option
@click.pass_context
def doctor(ctx: click.Context, form: Format) -> None:
    """Check database, broker, schema, workers and clocks.

    Exits with the code of the first thing that failed; warnings do not count.
    """
    settings = load_settings()
    findings = [*examine_database(settings), *examine_broker(settings)]
    rows = [{name: value for name, value in asdict(found).items() if name != "exit_code"} for found in findings]
    show_rows(rows, (Column("check"), Column("state"), Column("detail")), form)
    ctx.exit(next((found.exit_code for found in findings if found.exit_code), 0))


def examine_database(settings: Settings) -> Iterator[Finding]:
    """Yield what is found about the database, its schema and its clock."""
    try:
        with open_runtime(settings, broker=False, check_schema=False) as runtime:
            yield _ok("database", f"PostgreSQL {_server_version(runtime.engine)} at {server_name(runtime.engine.url)}")
            yield _schema(runtime.engine)
            yield _clock("database", lambda: repeat(runtime.engine, database_now))
    except BackfillError as error:
        yield _failed("database", error)


def examine_broker(settings: Settings) -> Iterator[Finding]:
    """Yield what is found about the broker, its clock and the workers that listen there."""
    try:
        with open_broker(settings) as url, connect(url) as client:
            yield from _broker(client, url)
            yield _clock("broker", lambda: _broker_now(client))
            yield from judge_workers(living_workers(url), settings.celery.queue, datetime.now(UTC))
    except BackfillError as error:
        yield _failed("broker", error)
    except redis.RedisError as error:
        yield Finding("broker", "failed", f"The broker answers with an error: {error}.", 69)


def _server_version(engine: Engine) -> str:
    return str(repeat(engine, lambda tx: tx.execute(text("show server_version")).scalar_one()))


def _schema(engine: Engine) -> Finding:
    try:
        migrations.check(engine)
    except BackfillError as error:
        return _failed("schema", error)
    return _ok("schema", f"{migrations.current(engine).revision}, up to date")


def _broker(client: redis.Redis, url: str) -> Iterator[Finding]:
    facts = client.info()
    name = "Valkey" if "valkey_version" in facts else "Redis"
    yield _ok("broker", f"{name} {facts.get('valkey_version') or facts.get('redis_version')} at {mask_url(url)}")
    if (policy := facts.get("maxmemory_policy", "noeviction")) != "noeviction":
        yield _warning("broker", f"maxmemory-policy is {policy}: it may drop messages; set it to noeviction.")
    if not facts.get("aof_enabled"):
        yield _warning("broker", "appendonly is off: messages are lost when it restarts, and sent again after a while.")


def _broker_now(client: redis.Redis) -> datetime:
    seconds, microseconds = client.time()
    return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)


def _clock(whose: str, read: Callable[[], datetime]) -> Finding:
    """Compare a server's clock with this machine's, taken in the middle of the question."""
    before = datetime.now(UTC)
    theirs = read()
    ours = before + (datetime.now(UTC) - before) / 2
    return judge_clock(whose, theirs - ours)


def judge_clock(whose: str, ahead: timedelta) -> Finding:
    """Return what to think of a clock that is `ahead` of this machine's."""
    check = f"clock of the {whose}"
    differs = f"{abs(ahead.total_seconds()):.3f} s {'ahead of' if ahead > timedelta(0) else 'behind'} this machine's"
    if abs(ahead) <= CLOCK_TOLERANCE:
        return _ok(check, differs)
    return _warning(check, f"{differs}: synchronise them, or times in logs and displays will mislead")


def judge_workers(workers: list[WorkerPresence], queue: str, now: datetime) -> Iterator[Finding]:
    """Yield what to think of each worker that listens, and of there being none for the default queue."""
    for worker in workers:
        yield _judge_worker(worker, now)
    if not any(queue in worker.queues for worker in workers):
        yield _warning("workers", f"None listens to the queue {queue!r}; start one with `backfill worker`.")


def _judge_worker(worker: WorkerPresence, now: datetime) -> Finding:
    check, faults = f"worker {worker.hostname}", []
    if worker.wire_version != WIRE_VERSION:
        faults.append(
            f"it reads messages of version {worker.wire_version}, {WIRE_VERSION} are sent: install the same backfill"
        )
    if worker.version != (here := version("backfill")):
        faults.append(f"it has backfill {worker.version}, this machine {here}")
    if _minor(worker.python) != _minor(platform.python_version()):
        faults.append(f"it has Python {worker.python}, which loads no DAG shipped by {platform.python_version()}")
    if abs(now - worker.time) > PRESENCE_TOLERANCE:
        faults.append(f"its clock is {abs((now - worker.time).total_seconds()):.0f} s off")
    if faults:
        return _warning(check, "; ".join(faults))
    listens = ", ".join(worker.queues)
    processes = "1 process" if worker.concurrency == 1 else f"{worker.concurrency} processes"
    return _ok(check, f"{processes} for {listens}, backfill {worker.version}, Python {worker.python}")


def _minor(python: str) -> str:
    return ".".join(python.split(".")[:2])
