"""The router container's entrypoint: configuration, the running service and its command line."""

import sys
from importlib import import_module
from typing import Any

SOCKET_NAME = "lanward.sock"
"""The control socket's name in the state folder."""


NO = 1
"""The exit code of a command whose answer is no."""


class NotRunningError(Exception):
    """The service does not answer; ``str()`` is one sentence for the operator."""


class RefusedError(Exception):
    """The control API answers no: an HTTP status, and why in one sentence."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class UsageError(Exception):
    """A command was given something it does not understand; ``str()`` is one line that says what it expects."""


def late(module: str) -> Any:
    """A module that a router without containers does not load: those take up to 0.2 s and 25 MiB. Their libraries want
    the ``ssl`` that the service keeps out (`without_ssl`)."""
    if sys.modules.get("ssl", sys) is None:
        del sys.modules["ssl"]
    return import_module(module)


def without_ssl() -> None:
    """All sockets of the service are local: 4 MiB that nobody would use."""
    sys.modules["ssl"] = None  # type: ignore[assignment]
