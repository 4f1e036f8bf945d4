"""Sends attempts to Celery workers, and hears from them through the job's event stream."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import redis
from celery import Celery
from kombu.connection import Connection
from kombu.entity import Exchange
from kombu.exceptions import BatchPublishError, OperationalError
from kombu.messaging import Producer

from backfill.exceptions import ConfigError, ServiceUnavailable
from backfill.executors import broker, queues
from backfill.executors.base import BaseExecutor, ExecutorContext, QueuedAttempt, Unsent
from backfill.executors.bundling import Backlog, pack, task_of
from backfill.executors.durations import Durations
from backfill.executors.listener import EventListener
from backfill.executors.sent import SentAttempts
from backfill.executors.shown import description_of, name_of
from backfill.executors.slots import Slots
from backfill.executors.used_queues import UsedQueues
from backfill.messages import LOOK, TASK_NAME, Bundle, ExecutorEvent, event_stream

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: A message sent so lately counts as known though it has left the queue: a worker is about to claim its attempt.
FRESHNESS = timedelta(seconds=10)
#: Pause before lost messages are sent once more, after that failed.
AGAIN_PAUSE = timedelta(seconds=2)

# kombu has types for some of its functions only
_Exchange: Any = Exchange
_Connection: Any = Connection
_Producer: Any = Producer

#: Where every Celery worker listens for orders.
_CONTROL = _Exchange("celery.pidbox", type="fanout", durable=False, delivery_mode="transient")

_AWAY = (redis.RedisError, OperationalError, OSError)


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message: `Producer.publish` takes `body`, and `options` as keywords."""

    body: Any
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sent:
    """All messages are in the queues."""


@dataclass(frozen=True, slots=True)
class MaybeSent:
    """The connection broke in the middle: any of the messages may be in its queue."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotSent:
    """The broker does not answer: none of the messages is in its queue."""

    reason: str


class Publisher:
    """The way to the queues: one connection, opened when it is needed, dropped when it fails. For one thread."""

    def __init__(self, broker_url: str) -> None:
        self._url = broker_url
        self._app = Celery("backfill", set_as_current=False)
        self._connection: Any = None
        self._producer: Any = None
        self._client: Any = None

    def parcel(self, bundle: Bundle, *, queue: str, shadow: str | None, description: str) -> Parcel:
        """Return the Celery message that carries `bundle`; its task id is the first attempt's id."""
        message = self._app.amqp.create_task_message(
            bundle.attempts[0].attempt_id,
            TASK_NAME,
            args=(bundle.encode(),),
            shadow=shadow,
            argsrepr="()",  # given, as Celery would otherwise work out a slow one
            kwargsrepr=description,
            ignore_result=True,
        )
        headers = message.headers | {queues.ATTEMPTS_HEADER: [attempt.attempt_id for attempt in bundle.attempts]}
        # the nameless exchange takes a message straight to the queue of that name: nothing has to be declared
        return Parcel(message.body, {"exchange": "", "routing_key": queue, "headers": headers, **message.properties})

    def publish(
        self, parcels: Callable[[], Sequence[Parcel]], before: Callable[[redis.Redis], None]
    ) -> Sent | MaybeSent | NotSent:
        """Send `parcels` in one pipeline, after `before`, which at the same time shows that the broker answers."""
        try:
            self.ask(before)
        except ServiceUnavailable as error:
            return NotSent(str(error))
        try:
            with self._producer.batch():
                for parcel in parcels():
                    self._producer.publish(parcel.body, serializer="json", **parcel.options)
        except (BatchPublishError, *_AWAY) as error:
            self.close()
            return MaybeSent(str(error.__cause__ or error))
        return Sent()

    def ask(self, question: Callable[[redis.Redis], T]) -> T:
        """Return what `question` finds at the broker; raises `ServiceUnavailable`."""
        try:
            self._open()
            return question(self._client)
        except _AWAY as error:
            self.close()
            raise ServiceUnavailable(f"The broker at {broker.masked(self._url)} does not answer: {error}") from error

    def order_to_look(self, attempt_ids: Sequence[str]) -> None:
        """Tell all workers to hold these attempts against their rows now; raises `ServiceUnavailable`."""
        arguments = {"attempt_ids": list(attempt_ids)}
        order = {"method": LOOK, "arguments": arguments, "destination": None, "pattern": None, "matcher": None}
        headers = {"clock": 0, "expires": 0}
        # not by Celery's own control, which would try for ever
        self.ask(
            lambda _: self._producer.publish(
                order, exchange=_CONTROL.name, declare=[_CONTROL], serializer="json", headers=headers
            )
        )

    @property
    def batches(self) -> bool:
        """Whether several messages travel in one pipeline."""
        return bool(self._open().supports_batch_publish)

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        connection, self._connection, self._producer, self._client = self._connection, None, None, None
        if connection is not None:
            with suppress(*_AWAY):
                connection.release()

    def end(self) -> None:
        """Close for good."""
        self.close()
        self._app.close()

    def _open(self) -> Any:
        if self._producer is None:
            self._connection = _Connection(self._url, transport_options=_transport_options())
            self._connection.ensure_connection(max_retries=1, interval_start=0, reraise_as_library_errors=False)
            self._producer = _Producer(self._connection.channel(), auto_declare=False)
            with self._producer.channel.conn_or_acquire() as client:  # holds no connection, and is slow to make
                self._client = client
        return self._producer


def _transport_options() -> dict[str, Any]:
    return {
        "socket_timeout": broker.ANSWER_TIMEOUT.total_seconds(),  # kombu's own would wait for ever
        "socket_connect_timeout": broker.CONNECT_TIMEOUT.total_seconds(),
        "socket_keepalive": True,
        "ack_emulation": False,  # as the workers have it
        # how often kombu tries to connect before it gives up, which by default it does not
        "max_retries": 1,
        "interval_start": 0,
        "client_name": "backfill-publisher",
    }


#: Attempts that are sent though nothing is known, neither of tasks nor of workers.
FIRST_HELPING = 16
#: For how long so few are sent, in seconds: those that nobody takes must not hold back others, which are for another queue.
FIRST_HELPING_FOR = 1.0


class CeleryExecutor(BaseExecutor):
    """Sends attempts to their worker queues, several short ones in one message while workers are busy (`bundling`).

    A message that the broker lost is sent again under the same attempt id, as soon as the broker is back: a second delivery
    loses the claim and has no effect. What no worker claims in spite of that is found by the sweep (S8.4).
    """

    name = "celery"

    def __init__(self) -> None:
        super().__init__()
        self._publisher: Publisher | None = None
        self._listener: EventListener | None = None
        self._sent = SentAttempts()
        self._durations = Durations()
        self._slots = Slots()
        #: Set, also by the listener's thread, when messages that were sent may have been lost.
        self._doubt = threading.Event()
        self._again_at = 0.0
        #: When it was first asked for its appetite.
        self._first_asked: float | None = None

    def start(self, context: ExecutorContext) -> None:
        """Connect, and listen from the present end of the job's stream on; raises `ServiceUnavailable`."""
        super().start(context)
        if not context.broker_url:
            raise ConfigError(
                "The Celery executor needs a broker; set celery.broker_url, or run with LocalExecutor() (--executor local)."
            )
        try:
            self._connect()
        except BaseException:
            self.end()
            raise

    def queue_task_instances(self, attempts: Sequence[QueuedAttempt]) -> list[Unsent]:
        """Send `attempts`; returns all of them as unsent if the broker is away, none if it went away in the middle."""
        if not attempts:
            return []
        match self._publish(attempts):
            case NotSent(reason):
                self._sent.forget(queued.attempt.attempt_id for queued in attempts)
                return [Unsent(queued.attempt.attempt_id, reason, broker_away=True) for queued in attempts]
            case MaybeSent(reason):
                logger.warning("%d messages may not have been sent, they will be sent again: %s", len(attempts), reason)
                self._doubt.set()
                return []
            case Sent():
                return []

    def appetite(self, in_flight: int) -> int | None:
        """Return None as soon as it is known how long any task takes, or after a second: until then no more than keeps all processes busy.

        What is not known travels alone, and so costs several times as much as what could share a message a moment later.
        """
        now = time.monotonic()
        self._first_asked = now if self._first_asked is None else self._first_asked
        if self._durations or now >= self._first_asked + FIRST_HELPING_FOR:
            return None
        with suppress(ServiceUnavailable):  # then as at the last look
            self._ask(self._slots.ask_if_due)
        return max(0, max(FIRST_HELPING, 2 * self._slots.total()) - in_flight)

    def catch_up(self) -> None:
        """Send messages again that may be lost."""
        if self._doubt.is_set() and time.monotonic() >= self._again_at:
            self._send_again()

    def get_event_buffer(self) -> list[ExecutorEvent]:
        """Return what has been reported since the last call; messages that may be lost are sent again first."""
        self.catch_up()
        return super().get_event_buffer()

    def holds(self, attempt_ids: Iterable[str]) -> set[str]:
        """Return those that wait in a queue, were sent just now, or are reported to run; all while the broker is away."""
        wanted = set(attempt_ids)
        fresh = min(FRESHNESS, self.context.settings.task.queued_timeout)
        known = wanted & self._sent.running_or_fresh(fresh)
        try:
            return known | self._waiting(wanted - known)
        except ServiceUnavailable:
            return wanted  # nothing counts as lost before somebody has looked

    def adopt(self, attempts: Sequence[QueuedAttempt]) -> set[str]:
        """Remember those whose message waits in a queue, to send it again should the broker lose it; return their ids."""
        held = self.holds(queued.attempt.attempt_id for queued in attempts)
        self._sent.adopt(queued for queued in attempts if queued.attempt.attempt_id in held)
        return held

    def revoke(self, attempt_ids: Iterable[str]) -> None:
        """Take the messages of these attempts out of the queues, as far as the broker answers."""
        unwanted = set(attempt_ids)
        self._sent.forget(unwanted)
        if unwanted:
            with suppress(ServiceUnavailable):  # their claims fail in any case
                self._ask(lambda client: queues.remove(client, self._used_queues.names(client), unwanted))

    def terminate(self, attempt_ids: Iterable[str]) -> None:
        """Have the workers look at the rows of these attempts now, not at their next heartbeat, and stop what they find (S7.6).

        No signal is sent from here: a process takes attempts one after the other, and it would hit whichever runs when it arrives.
        """
        unwanted = list(attempt_ids)
        if unwanted and self._publisher is not None:
            with suppress(ServiceUnavailable):
                self._publisher.order_to_look(unwanted)

    def end(self) -> None:
        """Close both connections and end the listening thread."""
        listener, self._listener = self._listener, None
        publisher, self._publisher = self._publisher, None
        if listener is not None:
            listener.stop()
        if publisher is not None:
            publisher.end()

    def _connect(self) -> None:
        context = self.context
        self._used_queues = UsedQueues(context.job_id, context.settings.celery.queue)
        self._publisher = Publisher(context.broker_url)
        self._ask(lambda client: self._mark(client, set()))
        if not self._publisher.batches:
            logger.warning("The broker URL's options turn batch publishing off: each message is sent by itself.")
        self._listener = listener = EventListener(
            context.broker_url,
            event_stream(context.job_id),
            marker=self._used_queues.key,
            receive=self._receive,
            distrust=self._distrust,
            order=context.mailbox.wake,
        )
        self._ask(lambda _: listener.start())

    def _publish(self, attempts: Sequence[QueuedAttempt]) -> Sent | MaybeSent | NotSent:
        if self._publisher is None:
            raise RuntimeError("the celery executor is not running")
        names = {queued.queue for queued in attempts}

        def prepare(client: redis.Redis) -> None:
            self._slots.ask_if_due(client)
            self._mark(client, names)

        def parcels() -> list[Parcel]:
            backlogs = {name: Backlog(self._slots.count(name), self._sent.outstanding(name)) for name in names}
            bundles = pack(attempts, self._durations, backlogs)
            self._sent.add(bundles)  # before a worker can report on one of them
            return [self._parcel(bundle) for bundle in bundles]

        return self._publisher.publish(parcels, before=prepare)

    def _parcel(self, bundle: Sequence[QueuedAttempt]) -> Parcel:
        context, first = self.context, bundle[0]
        attempts = tuple(queued.attempt for queued in bundle)
        assert self._publisher is not None
        return self._publisher.parcel(
            Bundle(context.job_id, context.dag_source, attempts, event_stream(context.job_id)),
            queue=first.queue,
            shadow=name_of(bundle) if context.settings.celery.readable_names else None,
            description=description_of(first),
        )

    def _send_again(self) -> None:
        self._doubt.clear()  # before looking: what goes wrong from here on sets it again
        candidates = {queued.attempt.attempt_id: queued for queued in self._sent.not_started()}
        try:
            waiting = self._waiting(set(candidates))
        except ServiceUnavailable:
            outcome: Sent | MaybeSent | NotSent = NotSent("")
        else:
            missing = [queued for attempt_id, queued in candidates.items() if attempt_id not in waiting]
            outcome = self._publish(missing)
        if not isinstance(outcome, Sent):
            self._doubt.set()
            self._again_at = time.monotonic() + AGAIN_PAUSE.total_seconds()

    def _waiting(self, wanted: set[str]) -> set[str]:
        if not wanted:
            return set()
        return self._ask(lambda client: queues.waiting(client, self._used_queues.names(client), wanted))

    def _ask(self, question: Callable[[redis.Redis], T]) -> T:
        if self._publisher is None:
            raise RuntimeError("the celery executor is not running")
        return self._publisher.ask(question)

    def _mark(self, client: redis.Redis, names: set[str]) -> None:
        was_emptied = self._used_queues.add(client, names)
        if was_emptied:  # the listener would find the set there again
            self._distrust()

    def _receive(self, events: Sequence[ExecutorEvent]) -> None:
        for event in events:
            queued = self._sent.note(event)
            if queued is not None and event.duration is not None:
                self._durations.note(task_of(queued), event.duration)
        self.context.mailbox.put(*events)

    def _distrust(self) -> None:
        self._doubt.set()
        self.context.mailbox.wake()
