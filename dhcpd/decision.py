"""What a server decides, as values: the closed set of effects that the shell carries out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from dhcpd.leases import Row
from dhcpd.replies import Send


class Note(NamedTuple):
    """Something for the log: ``level`` is a structlog method name, ``fields`` are JSON values."""

    level: str
    event: str
    fields: dict[str, Any]


class Decision(NamedTuple):
    """What to do, in this order: commit ``rows``, and only when they are on disk send and note the rest."""

    rows: Sequence[Row] = ()
    send: Send | None = None
    note: Note | None = None
    probes: Sequence[int] = ()
    """Addresses to ask for by ARP."""


NOTHING = Decision()
