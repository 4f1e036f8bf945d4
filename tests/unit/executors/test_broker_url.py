import pytest

from backfill.exceptions import ConfigError
from backfill.executors import broker


@pytest.mark.parametrize(
    ("celery", "plain"),
    [
        ("redis://localhost", "redis://localhost"),
        ("redis://:secret@example.org:6380/2", "redis://:secret@example.org:6380/2"),
        ("rediss://h/0?ssl_cert_reqs=CERT_REQUIRED", "rediss://h/0?ssl_cert_reqs=required"),
        ("rediss://h/0?ssl_cert_reqs=none", "rediss://h/0?ssl_cert_reqs=none"),
        ("redis+socket:///run/vk.sock", "unix:///run/vk.sock"),
        ("redis+socket:///run/vk.sock?virtual_host=3", "unix:///run/vk.sock?db=3"),
    ],
)
def test_celerys_urls_are_understood(celery: str, plain: str) -> None:
    assert broker.plain_url(celery) == plain


def test_the_client_goes_where_the_url_says() -> None:
    with broker.connect("redis+socket:///run/vk.sock?virtual_host=3", name="test") as client:
        options = client.connection_pool.connection_kwargs
    assert options["path"] == "/run/vk.sock"
    assert options["db"] == 3


@pytest.mark.parametrize("url", ["redis://localhost", "redis+socket:///run/vk.sock"])
def test_every_wait_has_an_end_and_nothing_is_repeated_unasked(url: str) -> None:
    with broker.connect(url, name="test") as client:
        options = client.connection_pool.connection_kwargs
    assert options["socket_timeout"] == broker.ANSWER_TIMEOUT.total_seconds()
    assert options["socket_connect_timeout"] == broker.CONNECT_TIMEOUT.total_seconds()
    assert options["retry"].get_retries() == 0


@pytest.mark.parametrize("url", ["amqp://localhost", "localhost:6379", ""])
def test_a_url_of_another_kind_is_refused_in_one_sentence(url: str) -> None:
    with pytest.raises(ConfigError, match="it takes redis://"):
        broker.connect(url, name="test")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@example.org:6380/2?password=secret", "redis://example.org:6380/2"),
        ("redis+socket://:secret@/run/vk.sock?password=secret", "redis+socket:///run/vk.sock"),
        ("redis://localhost", "redis://localhost"),
    ],
)
def test_nothing_secret_is_shown(url: str, shown: str) -> None:
    assert broker.masked(url) == shown
