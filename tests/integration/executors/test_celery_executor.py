"""How `CeleryExecutor` deals with the broker: a real one, that is killed, frozen and emptied. No worker is needed for that."""

import base64
import contextlib
import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from executor_attempts import DATE, ids, queued

from backfill.config import Settings
from backfill.embedded import Servers
from backfill.exceptions import ConfigError, ServiceUnavailable
from backfill.executors import CeleryExecutor, ExecutorContext, Mailbox, QueuedAttempt, broker, celery, listener, queues
from backfill.executors.celery import FIRST_HELPING
from backfill.executors.slots import Slots
from backfill.messages import Bundle, DagSource, ExecutorEvent, encode_events, event_stream
from backfill.states import TaskInstanceState
from workers.presence import Presence, presence_key

WaitUntil = Callable[..., None]
STREAM = event_stream(7)


def a_context(broker_url: str, settings: Settings | None = None) -> ExecutorContext:
    return ExecutorContext(
        job_id=7,
        settings=settings or Settings(),
        database_url="",
        broker_url=broker_url,
        dag_source=DagSource("sales", pickle_hash="abc"),
        mailbox=Mailbox(),
    )


@contextlib.contextmanager
def started(broker_url: str, settings: Settings | None = None) -> Iterator[CeleryExecutor]:
    executor = CeleryExecutor()
    executor.start(a_context(broker_url, settings))
    try:
        yield executor
    finally:
        executor.end()


@pytest.fixture(autouse=True)
def attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the listener look after the server more often than is good for one."""
    monkeypatch.setattr(listener, "BLOCK", timedelta(seconds=0.2))
    monkeypatch.setattr(listener, "CHECK_EVERY", timedelta(seconds=0.2))


@pytest.fixture
def executor(broker_url: str) -> Iterator[CeleryExecutor]:
    with started(broker_url) as executor:
        yield executor


@pytest.fixture
def server(broker_url: str) -> Iterator[redis.Redis]:
    with broker.connect(broker_url, name="test") as client:
        yield client


class OwnBroker:
    """A broker of the test's own, which it may kill. Killed and started again it is empty if it is `forgetful`."""

    def __init__(self, home: Path, *, forgetful: bool = False) -> None:
        self._servers = Servers(home)
        self._forgetful = forgetful
        self.url = ""
        self.start()

    def start(self) -> None:
        url = self._servers.acquire(database=False).broker_url
        assert url is not None
        self.url = url
        with self.client() as client:
            info: Any = client.info("server")
            self.pid = int(info["process_id"])
            if self._forgetful:
                client.config_set("appendonly", "no")

    def client(self) -> redis.Redis:
        return broker.connect(self.url, name="test")

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def stop(self) -> None:
        self._servers.release()


@pytest.fixture
def own_broker(home: Path) -> Iterator[OwnBroker]:
    own = OwnBroker(home)
    yield own
    own.stop()


@pytest.fixture
def forgetful_broker(home: Path) -> Iterator[OwnBroker]:
    own = OwnBroker(home, forgetful=True)
    yield own
    own.stop()


def messages(client: redis.Redis, queue: str = "backfill") -> list[dict[str, Any]]:
    """The messages of a queue, the one that a worker takes first in front."""
    raw: Any = client.lrange(queue, 0, -1)
    return [json.loads(text) for text in reversed(raw)]


def waiting_ids(client: redis.Redis) -> list[str]:
    return [message["headers"]["id"] for message in messages(client)]


def report(client: redis.Redis, attempt: QueuedAttempt, state: TaskInstanceState, entry_id: str = "*") -> ExecutorEvent:
    event = ExecutorEvent(attempt.attempt.task_instance_id, attempt.attempt.attempt_id, state)
    client.xadd(STREAM, {"event": event.encode()}, id=entry_id)
    return event


def collect(executor: CeleryExecutor, count: int) -> list[ExecutorEvent]:
    """Wait as the loop does until `count` events have come; at once if 0."""
    events: list[ExecutorEvent] = []
    while len(events) < count and executor.wait(30):
        events += executor.get_event_buffer()
    return events


def test_a_message_carries_the_attempt_to_its_queue(executor: CeleryExecutor, server: redis.Redis) -> None:
    attempt = queued("load", number=5, queue="heavy")
    assert executor.queue_task_instances([attempt]) == []
    (message,) = messages(server, "heavy")
    (body,), _, _ = json.loads(base64.b64decode(message["body"]))
    assert Bundle.decode(body) == Bundle(7, DagSource("sales", pickle_hash="abc"), (attempt.attempt,), STREAM)
    assert message["headers"]["id"] == attempt.attempt.attempt_id
    assert message["headers"]["task"] == "backfill.run"


def test_flower_can_show_a_message_readably(executor: CeleryExecutor, server: redis.Redis) -> None:
    executor.queue_task_instances([queued("load", number=1), queued("load", number=2, map_index=3)])
    shown = [message["headers"] for message in messages(server)]
    plain = f"{{'logical_date': '{DATE.isoformat()}', 'try_number': 1, 'dag_id': 'sales', 'task_id': 'load'}}"
    assert [headers["shadow"] for headers in shown] == ["sales.load"] * 2
    assert shown[0]["kwargsrepr"] == plain
    assert shown[1]["kwargsrepr"] == plain.replace("{", "{'map_index': 3, ")


def test_readable_names_can_be_turned_off(broker_url: str, server: redis.Redis) -> None:
    with started(broker_url, Settings().override("test", {"celery.readable_names": False})) as executor:
        executor.queue_task_instances([queued()])
        assert messages(server)[0]["headers"]["shadow"] is None


def test_a_batch_arrives_whole_and_in_order(executor: CeleryExecutor, server: redis.Redis) -> None:
    attempts = [queued(number=number) for number in range(1500)]
    assert executor.queue_task_instances(attempts) == []
    assert waiting_ids(server) == ids(attempts)


def test_a_batch_is_one_pipeline_and_nothing_is_said(broker_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with started(broker_url) as executor:
        assert executor._publisher is not None
        assert executor._publisher.batches
    assert caplog.records == []


def test_messages_are_sent_one_by_one_where_batches_are_off_and_the_log_says_so_once(
    broker_url: str, server: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with started(f"{broker_url}?retry_on_timeout=true") as executor:
        for _ in range(2):
            executor.queue_task_instances([queued(), queued()])
    assert len(messages(server)) == 4
    assert [record.message for record in caplog.records if "batch" in record.message] == [
        "The broker URL's options turn batch publishing off: each message is sent by itself."
    ]


def test_events_reach_the_mailbox_in_order(executor: CeleryExecutor, server: redis.Redis) -> None:
    events = [report(server, queued(number=number), TaskInstanceState.SUCCESS) for number in range(50)]
    assert collect(executor, 50) == events


def test_events_from_before_the_start_are_not_read(broker_url: str, server: redis.Redis) -> None:
    report(server, queued(), TaskInstanceState.SUCCESS)
    with started(broker_url) as executor:
        event = report(server, queued(), TaskInstanceState.FAILED)
        assert collect(executor, 1) == [event]


def test_an_event_of_an_attempt_sent_right_after_the_start_is_not_missed(broker_url: str, server: redis.Redis) -> None:
    for _ in range(20):
        with started(broker_url) as executor:
            event = report(server, queued(), TaskInstanceState.SUCCESS)
            assert collect(executor, 1) == [event]


def test_what_is_no_event_is_dropped_from_the_stream(
    executor: CeleryExecutor, server: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    server.xadd(STREAM, {"event": "garbage"})
    server.xadd(STREAM, {"event": b"\xff\x00"})
    event = report(server, queued(), TaskInstanceState.SUCCESS)
    assert collect(executor, 1) == [event]
    assert caplog.text.count("Dropped an entry") == 2


def test_what_waits_in_a_queue_is_held(executor: CeleryExecutor, server: redis.Redis) -> None:
    attempts = [queued(number=1), queued(number=2, queue="heavy")]
    executor.queue_task_instances(attempts)
    server.lpush("backfill", "not json", "{}", json.dumps({"headers": None}), json.dumps({"headers": {"attempts": 3}}))
    assert executor.holds([*ids(attempts), ids([queued()])[0]]) == set(ids(attempts))
    assert executor.holds([]) == set()


def test_another_process_of_the_job_adopts_what_waits_in_any_queue(executor: CeleryExecutor, broker_url: str) -> None:
    attempts = [queued(number=1), queued(number=2, queue="heavy")]
    executor.queue_task_instances(attempts)
    executor.end()
    with started(broker_url) as successor:
        adopted = successor.adopt([*attempts, queued()])
    assert adopted == set(ids(attempts))


def test_what_was_adopted_is_sent_again_when_the_broker_was_emptied(
    executor: CeleryExecutor, broker_url: str, server: redis.Redis
) -> None:
    attempts = [queued(number=1), queued(number=2, queue="heavy")]
    executor.queue_task_instances(attempts)
    executor.end()
    with started(broker_url) as successor:
        successor.adopt(attempts)
        server.flushall()
        assert successor.wait(30)
        successor.catch_up()
        assert waiting_ids(server) == ids(attempts[:1])
        assert successor.holds(ids(attempts)) == set(ids(attempts))


def test_what_is_adopted_and_does_not_wait_is_not_held(executor: CeleryExecutor) -> None:
    """So it is taken for an orphan at once (S8.5), and not for something that was sent just now."""
    stranger = queued()
    executor.adopt([stranger])
    assert executor.holds(ids([stranger])) == set()


def test_an_attempt_whose_message_a_worker_just_took_is_held(executor: CeleryExecutor, server: redis.Redis) -> None:
    attempt = queued()
    executor.queue_task_instances([attempt])
    server.delete("backfill")
    assert executor.holds(ids([attempt])) == set(ids([attempt]))


def test_a_message_that_vanished_long_ago_is_not_held(
    broker_url: str, server: redis.Redis, wait_until: WaitUntil
) -> None:
    with started(broker_url, Settings().override("test", {"task.queued_timeout": 0.05})) as executor:
        attempt = queued()
        executor.queue_task_instances([attempt])
        assert executor.holds(ids([attempt])) == set(ids([attempt]))
        server.delete("backfill")
        wait_until(lambda: executor.holds(ids([attempt])) == set(), "the message counts as lost")


def test_an_attempt_is_held_while_it_runs_and_not_once_it_ended(
    broker_url: str, server: redis.Redis, wait_until: WaitUntil
) -> None:
    with started(broker_url, Settings().override("test", {"task.queued_timeout": 0.05})) as executor:
        attempt = queued()
        executor.queue_task_instances([attempt])
        server.delete("backfill")
        report(server, attempt, TaskInstanceState.RUNNING)
        collect(executor, 1)
        assert executor.holds(ids([attempt])) == set(ids([attempt]))
        report(server, attempt, TaskInstanceState.SUCCESS)
        collect(executor, 1)
        wait_until(lambda: executor.holds(ids([attempt])) == set(), "the executor has forgotten it")


def test_a_queue_too_long_to_be_read_proves_no_loss(executor: CeleryExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "READABLE_LENGTH", 2)
    attempts = [queued(number=number) for number in range(3)]
    executor.queue_task_instances(attempts)
    stranger = ids([queued()])
    assert executor.holds(stranger) == set(stranger)


def test_revoking_takes_messages_out_of_their_queues(executor: CeleryExecutor, server: redis.Redis) -> None:
    attempts = [queued(number=number) for number in range(3)]
    heavy = queued(queue="heavy")
    executor.queue_task_instances([*attempts, heavy])
    server.lpush("backfill", "not ours")
    executor.revoke([attempts[1].attempt.attempt_id, heavy.attempt.attempt_id, "unknown"])
    server.lrem("backfill", 1, "not ours")
    assert waiting_ids(server) == [ids(attempts)[0], ids(attempts)[2]]
    assert server.llen("heavy") == 0


def teach(executor: CeleryExecutor, client: redis.Redis, seconds: float, task_id: str = "load") -> None:
    """Let the executor hear that an attempt of the task took so long."""
    attempt = queued(task_id)
    executor.queue_task_instances([attempt])
    event = ExecutorEvent(1, attempt.attempt.attempt_id, TaskInstanceState.SUCCESS, duration=seconds)
    client.xadd(STREAM, {"e": encode_events([event])})
    assert collect(executor, 1) == [event]
    client.delete("backfill")


def bundles(client: redis.Redis) -> list[list[str]]:
    """The attempts of each message of the queue, the one that a worker takes first in front."""
    return [message["headers"]["attempts"] for message in messages(client)]


def test_what_is_known_to_be_short_shares_messages_in_its_order(executor: CeleryExecutor, server: redis.Redis) -> None:
    teach(executor, server, 0.001)
    attempts = [queued(number=number) for number in range(7)]
    executor.queue_task_instances(attempts)  # one process is taken to listen
    executor.queue_task_instances([])
    assert bundles(server) == [ids(attempts)]
    (message,) = messages(server)
    (body,), _, _ = json.loads(base64.b64decode(message["body"]))
    assert Bundle.decode(body).attempts == tuple(attempt.attempt for attempt in attempts)
    assert message["headers"]["shadow"] == "sales.load and 6 more"


def test_as_many_messages_leave_as_processes_are_idle(executor: CeleryExecutor, server: redis.Redis) -> None:
    presence = Presence(hostname="one@host", concurrency=3, queues=["backfill"])
    server.set(presence_key("one@host"), presence.body())
    executor._slots = Slots()  # it has not asked yet
    teach(executor, server, 0.001)
    attempts = [queued(number=number) for number in range(7)]
    executor.queue_task_instances(attempts)
    assert [len(bundle) for bundle in bundles(server)] == [3, 3, 1]


def test_until_a_duration_is_known_no_more_is_wanted_than_keeps_all_processes_busy(
    executor: CeleryExecutor, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery, "FIRST_HELPING_FOR", 3600)
    assert [executor.appetite(in_flight) for in_flight in (0, 10, 30)] == [FIRST_HELPING, FIRST_HELPING - 10, 0]
    server.set(presence_key("one@host"), Presence(hostname="one@host", concurrency=20, queues=["backfill"]).body())
    executor._slots = Slots()  # workers have come, and a while has passed
    assert [executor.appetite(in_flight) for in_flight in (0, 10, 50)] == [40, 30, 0]
    teach(executor, server, 0.001)
    assert executor.appetite(1_000_000) is None


def test_what_nobody_takes_spoils_the_appetite_for_a_moment_only(
    executor: CeleryExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert executor.appetite(0) != 0
    monkeypatch.setattr(celery, "FIRST_HELPING_FOR", 0)
    assert executor.appetite(FIRST_HELPING) is None


def test_while_the_broker_is_away_as_much_is_wanted_as_at_the_last_look(
    own_broker: OwnBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery, "FIRST_HELPING_FOR", 3600)
    with started(own_broker.url) as executor:
        own_broker.send_signal(signal.SIGKILL)
        assert executor.appetite(0) == FIRST_HELPING


@pytest.mark.parametrize("state", [TaskInstanceState.RUNNING, TaskInstanceState.SUCCESS])
def test_what_is_reported_to_last_travels_alone(
    state: TaskInstanceState, executor: CeleryExecutor, server: redis.Redis
) -> None:
    teach(executor, server, 0.001)
    long = queued()
    executor.queue_task_instances([long])
    event = ExecutorEvent(1, long.attempt.attempt_id, state, duration=0.5)
    server.xadd(STREAM, {"e": encode_events([event])})
    collect(executor, 1)
    server.delete("backfill")
    attempts = [queued(number=number) for number in range(3)]
    executor.queue_task_instances(attempts)
    assert bundles(server) == [[attempt_id] for attempt_id in ids(attempts)]


def test_a_message_of_which_one_attempt_is_revoked_stays(executor: CeleryExecutor, server: redis.Redis) -> None:
    teach(executor, server, 0.001)
    attempts = [queued(number=number) for number in range(3)]
    executor.queue_task_instances(attempts)
    executor.revoke(ids(attempts[:1]))
    assert bundles(server) == [ids(attempts)]
    assert executor.holds(ids(attempts[1:])) == set(ids(attempts[1:]))
    executor.revoke(ids(attempts))
    assert bundles(server) == []


def test_of_a_bundle_that_vanished_what_is_not_over_is_sent_again(
    executor: CeleryExecutor, server: redis.Redis
) -> None:
    teach(executor, server, 0.001)
    attempts = [queued(number=number) for number in range(4)]
    executor.queue_task_instances(attempts)
    report(server, attempts[1], TaskInstanceState.SUCCESS)
    collect(executor, 1)
    server.flushall()
    assert executor.wait(30)
    executor.get_event_buffer()
    again = [attempt_id for bundle in bundles(server) for attempt_id in bundle]
    assert again == ids([attempts[0], *attempts[2:]])


def test_terminating_tells_the_workers_to_look_at_the_rows(executor: CeleryExecutor, server: redis.Redis) -> None:
    attempt = queued()
    with server.pubsub() as channel:
        channel.psubscribe("*pidbox*")
        while (channel.get_message(timeout=5) or {}).get("type") != "psubscribe":
            pass
        executor.terminate(ids([attempt]))
        heard: Any = channel.get_message(timeout=10)
    request = json.loads(base64.b64decode(json.loads(heard["data"])["body"]))
    assert request["method"] == "backfill_look"
    assert request["arguments"] == {"attempt_ids": ids([attempt])}


def test_the_end_leaves_no_thread_no_connection_and_no_key_that_stays_for_ever(
    broker_url: str, server: redis.Redis
) -> None:
    before = set(threading.enumerate())
    with started(broker_url) as executor:
        attempt = queued()
        executor.queue_task_instances([attempt])
        executor.terminate(ids([attempt]))
        report(server, attempt, TaskInstanceState.SUCCESS)
        collect(executor, 1)
        executor.revoke(ids([attempt]))
        executor.end()
    assert set(threading.enumerate()) == before
    clients: Any = server.client_list()
    assert {client["name"] for client in clients} == {"test"}
    keys: Any = server.keys()
    assert {key for key in keys if server.ttl(key) == -1} <= {
        STREAM.encode()
    }  # whoever writes to the stream sees to it


def test_a_broker_that_is_away_at_the_start_is_named_without_its_password(home: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(ServiceUnavailable, match=r"The broker at redis\+socket:///nonexistent/vk\.sock") as caught:
        CeleryExecutor().start(a_context("redis+socket://:secret@/nonexistent/vk.sock"))
    assert "secret" not in str(caught.value)
    assert set(threading.enumerate()) == before


def test_a_job_without_a_broker_is_told_how_to_run() -> None:
    with pytest.raises(ConfigError, match="--executor local"):
        CeleryExecutor().start(a_context(""))


def test_while_the_broker_is_away_nothing_is_sent_and_nothing_counts_as_lost(own_broker: OwnBroker) -> None:
    with started(own_broker.url) as executor:
        sent, unsent = queued(), queued()
        executor.queue_task_instances([sent])
        own_broker.send_signal(signal.SIGKILL)
        (refusal,) = executor.queue_task_instances([unsent])
        assert refusal.attempt_id == unsent.attempt.attempt_id
        assert refusal.broker_away
        assert "does not answer" in refusal.reason
        assert executor.holds(ids([sent, unsent])) == set(ids([sent, unsent]))
        executor.revoke(ids([unsent]))
        executor.terminate(ids([unsent]))


def test_a_broker_that_is_frozen_does_not_hang_the_loop(own_broker: OwnBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    with started(own_broker.url) as executor:
        own_broker.send_signal(signal.SIGSTOP)
        try:
            (refusal,) = executor.queue_task_instances([queued()])
            assert refusal.broker_away
            executor.end()
        finally:
            own_broker.send_signal(signal.SIGCONT)


def test_after_a_restart_of_the_broker_messages_wait_once_and_events_flow(own_broker: OwnBroker) -> None:
    with started(own_broker.url) as executor, own_broker.client() as client:
        attempt = queued()
        executor.queue_task_instances([attempt])
        own_broker.send_signal(signal.SIGKILL)
        own_broker.start()
        assert executor.wait(30)  # the listener is back and doubts
        executor.get_event_buffer()
        assert waiting_ids(client) == ids([attempt])
        event = report(client, attempt, TaskInstanceState.SUCCESS)
        assert collect(executor, 1) == [event]
        assert executor.queue_task_instances([queued()]) == []


def test_what_a_broker_lost_by_its_restart_is_sent_again_under_the_same_ids(
    forgetful_broker: OwnBroker, caplog: pytest.LogCaptureFixture
) -> None:
    with started(forgetful_broker.url) as executor, forgetful_broker.client() as client:
        waiting, running, over = queued(number=1), queued(number=2), queued(number=3, queue="heavy")
        executor.queue_task_instances([waiting, running, over])
        report(client, running, TaskInstanceState.RUNNING)
        report(client, over, TaskInstanceState.SUCCESS)
        collect(executor, 2)
        forgetful_broker.send_signal(signal.SIGKILL)
        forgetful_broker.start()
        assert executor.wait(30)
        executor.get_event_buffer()
        assert waiting_ids(client) == ids([waiting])
        assert client.llen("heavy") == 0
        event = report(client, waiting, TaskInstanceState.SUCCESS)
        assert collect(executor, 1) == [event]
    assert [record.levelno for record in caplog.records if "answer" in record.message] == [logging.WARNING] * 2


def test_what_vanished_from_a_server_that_was_emptied_is_sent_again(
    executor: CeleryExecutor, server: redis.Redis
) -> None:
    attempts = [queued(number=1), queued(number=2)]
    executor.queue_task_instances(attempts)
    server.flushall()
    assert executor.wait(30)
    executor.get_event_buffer()
    assert waiting_ids(server) == ids(attempts)


def test_an_emptied_server_whose_clock_went_back_is_still_heard(executor: CeleryExecutor, server: redis.Redis) -> None:
    report(server, queued(), TaskInstanceState.SUCCESS)
    collect(executor, 1)
    server.flushall()
    event = report(server, queued(), TaskInstanceState.SUCCESS, entry_id="5-1")
    assert collect(executor, 1) == [event]


def test_what_vanished_before_others_were_sent_is_sent_again(executor: CeleryExecutor, server: redis.Redis) -> None:
    before, after = queued(number=1), queued(number=2)
    executor.queue_task_instances([before])
    server.flushall()
    executor.queue_task_instances([after])
    executor.catch_up()
    assert sorted(waiting_ids(server)) == sorted(ids([before, after]))


def test_messages_that_may_have_been_sent_stay_queued_and_are_sent_again(
    forgetful_broker: OwnBroker, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    attempt = queued()
    with started(forgetful_broker.url) as executor:
        mark = executor._mark

        def mark_and_die(client: redis.Redis, names: set[str]) -> None:
            mark(client, names)
            forgetful_broker.send_signal(signal.SIGKILL)

        monkeypatch.setattr(executor, "_mark", mark_and_die)
        assert executor.queue_task_instances([attempt]) == []
        monkeypatch.undo()
        forgetful_broker.start()

        def sent_again() -> bool:
            executor.wait(0.1)
            executor.get_event_buffer()
            with forgetful_broker.client() as client:
                return waiting_ids(client) == ids([attempt])

        wait_until(sent_again, "the message was sent again")


def test_the_same_attempt_may_be_handed_over_twice(executor: CeleryExecutor, server: redis.Redis) -> None:
    attempt = queued()
    for _ in range(2):
        assert executor.queue_task_instances([attempt]) == []
    assert waiting_ids(server) == ids([attempt]) * 2
