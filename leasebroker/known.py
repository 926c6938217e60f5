"""What the broker knows: the VLANs it serves, the containers that the engine shows, their leases, and what is wrong."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import NamedTuple

from dhcpd.decision import Note
from dhcpd.histogram import Histogram
from dhcpd.pool import dotted
from leasebroker.containers import STARTED, Container, Network, Problem, Wish, gateway_problem, wishes


class Leg(NamedTuple):
    """A VLAN with containers. ``router`` is an address, ``mtu`` 0 when it is to stay as it is."""

    vlan: str
    network: str
    """The Docker network."""
    subnet: IPv4Network
    router: int
    landing: IPv4Network | None
    mtu: int = 0
    is_external: bool = False
    """Whether another DHCP server serves it."""


@dataclass(slots=True)
class Record:
    """One container on one VLAN, as it is known to the operator. Addresses are integers."""

    leg: Leg
    container: str
    """Its id."""
    name: str
    identity: str = ""
    state: str = ""
    address: int | None = None
    """Its lease, None when there is none for it."""
    docker: int = 0
    """The address that Docker gave."""
    mac: bytes = b""
    pinned_at: float | None = None
    """Wall clock time, None when the lease is not on the link."""
    path: str | None = None
    """``namespace`` (before the container's first instruction), ``start`` or ``reconcile``."""
    problems: tuple[Problem, ...] = ()

    @property
    def is_missing(self) -> bool:
        """Whether the container runs without its lease."""
        return self.pinned_at is None and self.state in STARTED

    @property
    def title(self) -> str:
        """What its warnings are kept under."""
        return f"container {self.name} on {self.leg.network}"


Key = tuple[str, str]
"""(container id, network)"""


class Known:
    """All of it, by what it is asked for. ``counts``: pins by their path, what was right when it was first seen
    (``kept``), and what was ``drift``, ``adopted``, ``healed`` and ``repaired``."""

    def __init__(self, legs: Sequence[Leg], log: Callable[[Note], None]) -> None:
        self.legs = tuple(legs)
        self.log = log
        self.containers: dict[str, Container] = {}
        self.seen_at: dict[str, float] = {}
        """When the engine showed a container last, by its id; wall clock time."""
        self.networks: dict[str, Network] = {}
        self.records: dict[Key, Record] = {}
        self.counts: Counter[str] = Counter()
        self.warnings: dict[str, str] = {}
        self.pin_seconds = Histogram()
        """From the look that found a link without its lease until it has it."""
        self.looked_at: float | None = None
        """When everything was looked at last, wall clock time."""

    def take(self, containers: Iterable[Container]) -> None:
        """What the engine says of some containers. A name is one container's at a time: who had it before is gone, or
        has another name by now, and counts no more until a look at all shows it."""
        now = time.time()
        for one in containers:
            for id_ in [id_ for id_, other in self.containers.items() if other.name == one.name and id_ != one.id]:
                del self.containers[id_]
            self.containers[one.id] = one
            self.seen_at[one.id] = now
            for network in one.endpoints:
                if (record := self.records.get((one.id, network))) is not None:
                    if record.name != one.name:
                        self._forget(record.title)
                    record.state, record.name = one.state, one.name

    def replace(
        self,
        containers: Iterable[Container],
        networks: Iterable[Network],
        unread: Mapping[str, Problem] | None = None,
        *,
        then: Mapping[str, Container],
    ) -> set[str]:
        """What the engine says of all, the youngest first: what it does not name is gone. ``unread``: what is wrong
        with containers that cannot be read, by their names. Returns the ids of those that are new, or not as they were.

        ``then`` are the containers that were known when the engine was asked: what it said of one since counts more,
        for the answer may be from before.
        """
        containers = list(containers)[::-1]
        there_now = {one.id for one in containers}
        since = [one for id_, one in self.containers.items() if then.get(id_) != one]
        before, self.containers = self.containers, {}
        self.seen_at = {}
        self.take(before[id_] for id_ in before if id_ in there_now)
        self.take(containers)
        self.take(since)
        self.networks = {one.name: one for one in networks}
        served = {leg.network for leg in self.legs}
        there = {(id_, network) for id_, one in self.containers.items() for network in one.endpoints}
        for key in [key for key in self.records if key not in there or key[1] not in served]:
            self._forget(self.records.pop(key).title)
        unread = {f"container {name}": problem for name, problem in (unread or {}).items()}
        for title, problem in unread.items():
            self.warn(title, problem)
        titles = {one.title for one in self.records.values()} | unread.keys() | {f"network {name}" for name in served}
        for title in {_title(key) for key in self.warnings} - titles - {""}:
            self._forget(title)
        return {id_ for id_, one in self.containers.items() if before.get(id_) != one}

    def _forget(self, title: str) -> None:
        """All that is wrong with a container on a network, or with a network."""
        self.warnings = {key: text for key, text in self.warnings.items() if _title(key) != title}

    def wishes(self, leg: Leg) -> dict[str, Wish]:
        """What each container on a VLAN asks for, by its id."""
        held = {id_: one.identity for (id_, network), one in self.records.items() if network == leg.network}
        found = wishes(self.containers.values(), leg.network, held)
        legs = [(leg.vlan, leg.network) for leg in self.legs]
        for id_, wish in found.items():
            if (problem := gateway_problem(self.containers[id_], legs)) is not None:
                found[id_] = wish._replace(problems=(*wish.problems, problem))
        return found

    def record(self, leg: Leg, one: Container) -> Record:
        """The record of a container on a VLAN, made when there is none."""
        record = self.records.setdefault((one.id, leg.network), Record(leg, one.id, one.name))
        record.leg, record.name, record.state = leg, one.name, one.state
        return record

    def docker_address(self, leg: Leg, one: Container) -> int:
        """The address that Docker gave a container, 0 when it is not known."""
        network = self.networks.get(leg.network)
        members = () if network is None else network.members
        found = next((member.address for member in members if member.name == one.name), 0)
        return found or one.endpoints[leg.network].address

    def note(self, level: str, event: str, record: Record, **more: str) -> None:
        """A line in the log about a container's lease."""
        address = dotted(record.address or 0)
        fields = {"vlan": record.leg.vlan, "container": record.name, "address": address, **more}
        self.log(Note(level, event, fields))

    def warn(self, key: str, text: str | None) -> None:
        """What is wrong with ``key``, None when nothing is. In the log once for as long as it is so.

        A key that ends with a record's title, or with ``network`` and a name, goes with that.
        """
        if text is None:
            self.warnings.pop(key, None)
        elif self.warnings.get(key) != text:
            self.warnings[key] = text
            self.log(Note("warning", "containers", {"what": text}))


def _title(key: str) -> str:
    """What in the key of a warning names a container on a network, or a network; empty when it is about neither."""
    at = max(key.find("container "), 0)
    return key[at:] if key.startswith(("container ", "network "), at) else ""
