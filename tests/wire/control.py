"""The control socket, asked as any HTTP client would."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import NamedTuple


class Answer(NamedTuple):
    status: int
    content_type: str
    body: bytes


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(state: Path, method: str, target: str, body: str | None = None) -> Answer:
    """One request to the service whose state folder is ``state``."""
    connection = _Connection(state / "lanward.sock")
    try:
        connection.request(method, target, body)
        response = connection.getresponse()
        return Answer(response.status, response.headers["Content-Type"], response.read())
    finally:
        connection.close()
