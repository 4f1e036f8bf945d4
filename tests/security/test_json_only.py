"""Nothing but JSON is read from a queue: no other form of message can become code, at the workers or in Flower."""

from __future__ import annotations

import base64
import pickle
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection
from kombu.exceptions import ContentDisallowed
from kombu.serialization import dumps, enable_insecure_serializers

from backfill.cli.flower import _celery_app
from backfill.config import Settings
from workers.app import app as worker_app


class Touch:
    """What would leave a file behind if it were unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def flower_app(settings: Settings) -> Any:
    return _celery_app(settings, settings.celery.broker_url)


def flowerless_worker(settings: Settings) -> Any:
    return worker_app


@pytest.mark.parametrize("app_of", [flowerless_worker, flower_app])
@pytest.mark.parametrize(
    "content_type", ["application/x-python-serialize", "application/x-yaml", "application/x-msgpack"]
)
def test_a_message_of_another_kind_is_refused_unread(
    app_of: Any, content_type: str, settings: Settings, tmp_path: Path
) -> None:
    enable_insecure_serializers()  # as if somebody had asked kombu for them
    accepted = {f"application/{name}" for name in app_of(settings).conf.accept_content}
    assert accepted == {"application/json"}
    mark = tmp_path / "unpickled"
    with Connection(settings.celery.broker_url) as connection, connection.channel() as channel:
        body = base64.b64encode(pickle.dumps(Touch(mark))).decode()
        raw = {
            "body": body,
            "content-type": content_type,
            "content-encoding": "binary",
            "headers": {},
            "properties": {"body_encoding": "base64", "delivery_tag": "1", "delivery_info": {}},
        }
        message = channel.message_to_python(raw)
        message.accept = accepted
        with pytest.raises(ContentDisallowed):
            message.decode()
    assert not mark.exists()


def test_what_the_coordinator_sends_is_json() -> None:
    content_type, _encoding, body = dumps([[{"v": 1}], {}, {}], serializer="json")
    assert content_type == "application/json"
    assert body.startswith("[")
