"""Who a container is in the lease book: its name, never its MAC and never its container id."""

from __future__ import annotations

import re

from dhcpd import identity

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


def container_name(value: object) -> str:
    """A name by Docker's own rule, which holds for networks too. Raises ValueError."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(
            "expected a Docker name: two or more letters, digits, '_', '.' or '-', a letter or digit first"
        )
    return value


def container_key(name: str) -> bytes:
    """The key of the container of that name in the lease book. Raises ValueError when Docker allows no such name."""
    return identity.container_key(container_name(name))
