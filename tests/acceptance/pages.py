"""Pages that commands serve on this machine."""

from __future__ import annotations

from base64 import b64encode
from http.client import HTTPConnection


def asked(port: int, path: str, *, method: str = "GET", login: str | None = None) -> tuple[int, str] | None:
    """Return status and body of a page; None while nobody listens."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Authorization": f"Basic {b64encode(login.encode()).decode()}"} if login else {}
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except OSError:
        return None
    finally:
        connection.close()


def answer(port: int, path: str, *, method: str = "GET", login: str | None = None) -> tuple[int, str]:
    """Return status and body of a page that somebody serves."""
    answered = asked(port, path, method=method, login=login)
    assert answered is not None
    return answered
