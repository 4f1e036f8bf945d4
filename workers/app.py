"""The Celery app. Every setting that differs from Celery's default is here, with its reason.

`celery -A workers worker` and `backfill worker` both run it. Importing it reads no settings and starts nothing: settings are read
when Celery first asks for its configuration, embedded servers are attached to when a worker starts (`workers.lifecycle`).
"""

from __future__ import annotations

from typing import Any

from celery import Celery

from backfill.config import Settings, load_settings
from backfill.exceptions import BackfillError
from workers.lifecycle import Lifecycle, refuse
from workers.queues import queues_named
from workers.transport import use_instead_of_kombus


def celery_configuration(settings: Settings) -> dict[str, Any]:
    """Return Celery's settings for these settings of ours."""
    configuration = {
        "broker_url": settings.celery.broker_url or None,
        "task_default_queue": settings.celery.queue,
        "task_queues": queues_named([settings.celery.queue]),
        "worker_concurrency": settings.worker.concurrency or None,
        "include": ["workers.tasks"],
    }
    return configuration | _DELIVERY | _BROKER | _PROCESSES | _SHOWN


#: A message is taken when a child is free, and is gone then: no double run when a connection breaks. What is lost by that, claim,
#: heartbeat and sweep find (architecture, "The protocol").
_DELIVERY: dict[str, Any] = {
    "task_acks_late": False,
    "task_acks_on_failure_or_timeout": True,
    # a free child of another worker must not wait behind a busy one of this
    "worker_disable_prefetch": True,
    "worker_prefetch_multiplier": 1,
    # JSON only: nothing in a message can become code
    "accept_content": ["json"],
    "task_serializer": "json",
    "result_serializer": "json",
    # results are rows of the database
    "result_backend": None,
    "task_ignore_result": True,
    "task_store_errors_even_if_ignored": False,
    # a misspelt queue is an error, not a queue that nobody listens to
    "task_create_missing_queues": False,
    "task_default_priority": None,
    "enable_utc": True,
    "timezone": "UTC",
}

_BROKER: dict[str, Any] = {
    # one BRPOP for each message instead of seven commands: nothing is ever acknowledged late
    "broker_transport_options": {
        "ack_emulation": False,
        # kombu's own default would wait for ever on a connection that is half open
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
    },
    # a worker outlives its broker, at its start too
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_pool_limit": 2,
    # running tasks do not need the broker
    "worker_cancel_long_running_tasks_on_connection_loss": False,
}

_PROCESSES: dict[str, Any] = {
    # a task has to be stoppable and killable without harm to the worker (S7.6), which only processes are; Celery's prefork but for
    # the time that it takes to find an idle one
    "worker_pool": "workers.pool:TaskPool",
    # children share the flag that says that the worker stops, and the imports of their parent
    "worker_pool_start_method": "fork",
    # the row says what became of a dead child's attempt: no need to wait ten seconds for a result that may still come
    "worker_lost_wait": 0.5,
    # `workers.shutdown` does that better: Celery would sleep for all of the time, though the tasks had ended
    "worker_soft_shutdown_timeout": 0,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "worker_enable_remote_control": True,
    "worker_max_tasks_per_child": None,
}

#: For Flower.
_SHOWN: dict[str, Any] = {
    # three messages for each task that nobody may be watching: Flower turns them on where it runs
    "worker_send_task_events": False,
    "task_send_sent_event": False,
    "task_track_started": False,
    "event_queue_expires": 60,
}


def _configuration() -> dict[str, Any]:
    try:
        return celery_configuration(load_settings())
    except BackfillError as error:
        refuse(error)


use_instead_of_kombus()
app = Celery("backfill", set_as_current=True)
app.add_defaults(_configuration)

lifecycle = Lifecycle(app)
lifecycle.connect()
