import os
import signal
import threading
from dataclasses import replace
from uuid import uuid4

from backfill.executors import Mailbox
from backfill.messages import ExecutorEvent
from backfill.states import TaskInstanceState


def an_event(number: int = 1) -> ExecutorEvent:
    return ExecutorEvent(number, str(uuid4()), TaskInstanceState.SUCCESS)


def test_events_come_out_once_and_in_the_order_they_came_in() -> None:
    mailbox, events = Mailbox(), [an_event(n) for n in range(5)]
    for event in events:
        mailbox.put(event)
    assert mailbox.wait(0)
    assert mailbox.drain() == events
    assert mailbox.drain() == []
    assert not mailbox.wait(0)


def test_events_that_came_together_come_out_one_by_one() -> None:
    mailbox, events = Mailbox(), [an_event(n) for n in range(3)]
    mailbox.put(*events)
    mailbox.put()
    assert mailbox.wait(0)
    assert mailbox.drain() == events
    assert not mailbox.wait(0)


def test_waiting_does_not_consume_the_event() -> None:
    mailbox, event = Mailbox(), an_event()
    mailbox.put(event)
    assert mailbox.wait(0)
    assert mailbox.wait(0)
    assert mailbox.drain() == [event]


def test_a_wake_ends_one_wait() -> None:
    mailbox = Mailbox()
    mailbox.wake()
    mailbox.wake()
    assert mailbox.wait(0)
    assert not mailbox.wait(0)


def test_a_wake_that_comes_with_events_survives_the_drain() -> None:
    mailbox, event = Mailbox(), an_event()
    mailbox.put(event)
    mailbox.wake()
    assert mailbox.drain() == [event]
    assert mailbox.wait(0)


def test_a_wait_without_limit_ends_with_an_event_from_another_thread() -> None:
    mailbox, event = Mailbox(), an_event()
    writer = threading.Thread(target=mailbox.put, args=(event,))
    writer.start()
    assert mailbox.wait()
    writer.join()
    assert mailbox.drain() == [event]


def test_a_negative_timeout_looks_without_waiting() -> None:
    assert not Mailbox().wait(-1)


def test_nothing_is_lost_between_many_writers_and_one_reader() -> None:
    mailbox, writers, each = Mailbox(), 8, 500
    start = threading.Barrier(writers + 1)

    def write(number: int) -> None:
        start.wait()
        for n in range(each):
            mailbox.put(an_event(number * each + n))
            mailbox.wake()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    start.wait()
    seen: list[int] = []
    while len(seen) < writers * each and mailbox.wait(30):
        seen += [event.task_instance_id for event in mailbox.drain()]
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(writers * each))
    for number in range(writers):
        mine = [n for n in seen if n // each == number]
        assert mine == sorted(mine)


def test_a_signal_handler_may_wake_the_thread_that_waits() -> None:
    mailbox = Mailbox()
    former = signal.signal(signal.SIGUSR1, lambda *_: mailbox.wake())
    try:
        sender = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        sender.start()
        assert mailbox.wait(30)
        sender.join()
    finally:
        signal.signal(signal.SIGUSR1, former)


def test_wakes_from_a_signal_handler_are_never_lost_wherever_they_interrupt() -> None:
    mailbox, rounds = Mailbox(), 200
    former = signal.signal(signal.SIGALRM, lambda *_: mailbox.wake())
    try:
        for n in range(rounds):
            signal.setitimer(signal.ITIMER_REAL, 0.0001 + (n % 7) * 0.00005)
            assert mailbox.wait(30)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def test_it_says_once_that_somebody_woke_the_reader() -> None:
    mailbox = Mailbox()
    assert not mailbox.was_woken()
    mailbox.wake()
    mailbox.wait(0)
    assert mailbox.was_woken()
    assert not mailbox.was_woken()


def test_events_gather_until_there_are_enough() -> None:
    mailbox, events = Mailbox(), [an_event(n) for n in range(5)]
    for event in events:
        mailbox.put(event)
    mailbox.gather(3600, enough=5)
    assert mailbox.drain() == events


def test_attempts_that_began_are_not_what_is_gathered() -> None:
    mailbox = Mailbox()
    for n in range(5):
        mailbox.put(replace(an_event(n), state=TaskInstanceState.RUNNING))
    waker = threading.Thread(target=lambda: mailbox.put(*(an_event(n) for n in range(2))))
    waker.start()
    mailbox.gather(3600, enough=2)
    waker.join()
    assert len(mailbox.drain()) == 7
    mailbox.put(an_event())
    mailbox.put(an_event())
    mailbox.gather(3600, enough=2)
    assert len(mailbox.drain()) == 2


def test_a_wake_ends_the_gathering_and_still_counts_afterwards() -> None:
    mailbox = Mailbox()
    mailbox.put(an_event())
    waker = threading.Thread(target=mailbox.wake)
    waker.start()
    mailbox.gather(3600, enough=2)
    waker.join()
    mailbox.drain()
    assert mailbox.wait(0)


def test_nothing_is_gathered_for_no_time() -> None:
    mailbox, event = Mailbox(), an_event()
    mailbox.put(event)
    mailbox.gather(0, enough=2)
    assert mailbox.drain() == [event]


def test_a_drain_may_leave_the_rest_for_the_next() -> None:
    mailbox, events = Mailbox(), [an_event(n) for n in range(5)]
    for event in events:
        mailbox.put(event)
    assert mailbox.drain(3) == events[:3]
    assert mailbox.wait(0)
    assert mailbox.drain(3) == events[3:]
